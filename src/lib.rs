pub mod feed;
pub mod config;
pub mod event;
pub mod schema;
pub mod transcode;
pub mod restore;
pub mod record;

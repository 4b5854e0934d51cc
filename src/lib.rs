pub mod feed;
pub mod config;

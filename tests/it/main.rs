mod events;
mod support;
mod translation;

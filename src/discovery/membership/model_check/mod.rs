//! The rules of learning, checked whole: as stories, and by an exhaustive search.

mod driver;
mod search;
mod stories;
mod world;

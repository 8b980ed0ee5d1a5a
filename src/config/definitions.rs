//! What a key is: its name, the kind of its value, its default and a sentence about it.
//!
//! The parser takes the names, `config show` the defaults, and `schema` all of it.

/// A key of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// The default in TOML; `None`: the key has none, or one that follows from other keys.
    pub(super) default: Option<&'static str>,
    pub(super) about: &'static str,
}

/// What a value may be. The readers in `value` check more than this.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Boolean,
    /// A whole number in this range.
    Number(u32, u32),
    Text,
    /// A number and a unit in quotes.
    Duration,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    List(&'static Kind),
    Table(&'static [Key]),
    /// Networks, each with the one that replaces it.
    Map,
    /// `false` in the place of a table.
    OffOr(&'static Kind),
    /// Either of two.
    Either(&'static Kind, &'static Kind),
}

impl Key {
    pub(super) const fn new(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { name, kind, default: None, about }
    }

    pub(super) const fn or(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        self.name
    }
}

impl Kind {
    /// The keys of the table that the value is or may be.
    pub(super) const fn table(self) -> Option<&'static [Key]> {
        match self {
            Self::Table(keys) | Self::OffOr(&Self::Table(keys)) => Some(keys),
            _ => None,
        }
    }
}

/// A list of texts.
pub(super) const TEXTS: Kind = Kind::List(&Kind::Text);

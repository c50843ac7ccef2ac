//! How snapshot files are compressed (`SnapStream.StreamMode`).

/// What a snapshot is packed with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Packing {
    #[default]
    Plain,
    Gzip,
    Snappy,
}

impl Packing {
    /// The value of `snapshot.compression.method`, and the last part of a file's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Gzip => "gz",
            Self::Snappy => "snappy",
        }
    }

    /// The one of this name, in any case.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Plain, Self::Gzip, Self::Snappy]
            .into_iter()
            .find(|packing| packing.name().eq_ignore_ascii_case(name))
    }
}

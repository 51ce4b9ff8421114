//! Regular shapes of the tree: the values of the `tbon.topo` attribute.

use std::fmt;
use std::str::FromStr;

/// Largest number of children that `mincrit` gives a router when it may choose.
const MINCRIT_FANOUT: u32 = 1024;

/// A tree that is told by its name and the number of brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `kary:K`: every broker has up to K children, filled level by level. 0: all are children of
    /// rank 0.
    Kary(u32),
    /// `mincrit` or `mincrit:K`: K routers below rank 0, all others below the routers in turn. 0:
    /// all are children of rank 0.
    Mincrit(Option<u32>),
    /// `binomial`
    Binomial,
    /// `custom`: by the `parent` keys of the configuration; without any, all are children of rank
    /// 0.
    Custom,
}

/// A `tbon.topo` value that names no shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    #[error("unknown topology scheme '{0}'")]
    Unknown(String),
    #[error("{0} k value must be an integer >= 0")]
    Number(&'static str),
    #[error("unknown {0} topology directive: '{1}'")]
    Directive(&'static str, String),
}

// === impl Shape ===

impl FromStr for Shape {
    type Err = ShapeError;

    fn from_str(text: &str) -> Result<Shape, ShapeError> {
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        let plain = |shape, name| match rest {
            "" => Ok(shape),
            rest => Err(ShapeError::Directive(name, rest.to_owned())),
        };
        match name {
            "kary" => Ok(Shape::Kary(rest.parse().map_err(|_| ShapeError::Number("kary"))?)),
            "mincrit" if rest.is_empty() => Ok(Shape::Mincrit(None)),
            "mincrit" => {
                Ok(Shape::Mincrit(Some(rest.parse().map_err(|_| ShapeError::Number("mincrit"))?)))
            }
            "binomial" => plain(Shape::Binomial, "binomial"),
            "custom" => plain(Shape::Custom, "custom"),
            _ => Err(ShapeError::Unknown(name.to_owned())),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shape::Kary(k) => write!(f, "kary:{k}"),
            Shape::Mincrit(None) => f.write_str("mincrit"),
            Shape::Mincrit(Some(k)) => write!(f, "mincrit:{k}"),
            Shape::Binomial => f.write_str("binomial"),
            Shape::Custom => f.write_str("custom"),
        }
    }
}

impl Shape {
    /// The parent of a rank in a tree of `size` brokers; 0 for rank 0, too.
    pub(super) fn parent(self, rank: u32, size: u32) -> u32 {
        if rank == 0 {
            return 0;
        }
        match self {
            Shape::Kary(0) | Shape::Custom => 0,
            Shape::Kary(k) => (rank - 1) / k,
            Shape::Mincrit(k) => {
                let routers = k.unwrap_or_else(|| mincrit_routers(size));
                if rank <= routers || routers == 0 { 0 } else { (rank - routers - 1) % routers + 1 }
            }
            // Without its lowest bit.
            Shape::Binomial => rank & (rank - 1),
        }
    }
}

/// The fewest routers, but not one alone, that keep the fanout of each within the limit.
fn mincrit_routers(size: u32) -> u32 {
    if size <= MINCRIT_FANOUT + 1 {
        return 0;
    }
    // k routers serve size - 1 - k leaves: the least k with (size - 1 - k) / k <= the limit.
    (size - 1).div_ceil(MINCRIT_FANOUT + 1).max(2)
}

//! Shapes on a grid.

use std::fmt;
use std::ops::Add;

/// A point, counted in cells from the upper left corner.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct Point<T> {
    pub x: T,
    pub y: T,
}

impl<T: Add<Output = T>> Add for Point<T> {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { x: self.x + other.x, y: self.y + other.y }
    }
}

/// Anything that covers cells.
pub trait Shape {
    fn area(&self) -> u64;

    /// Whether the shape covers nothing.
    fn is_empty(&self) -> bool {
        self.area() == 0
    }
}

pub mod path {
    use super::Point;

    /// Walk from one point to another, first along x and then along y, and call `visit` on every cell
    /// on the way, both ends included.
    pub fn walk(from: Point<i64>, to: Point<i64>, mut visit: impl FnMut(Point<i64>)) {
        let mut here = from;
        visit(here);
        while here.x != to.x {
            here.x += (to.x - here.x).signum();
            visit(here);
        }
        while here.y != to.y {
            here.y += (to.y - here.y).signum();
            visit(here);
        }
    }

    #[inline]
    #[must_use]
    pub fn length(from: Point<i64>, to: Point<i64>) -> u64 {
        // Cells are joined by their sides only, so this is the distance of a taxi, not of a bird.
        let across = from.x.abs_diff(to.x);
        let down = from.y.abs_diff(to.y);
        across + down
    }
}

impl<'a> fmt::Display for Point<&'a str> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wide = formatter.width().unwrap_or(0);
        write!(formatter, "({:>wide$}, {:>wide$})", self.x, self.y, wide = wide)?;
        Ok(())
    }
}

macro_rules! point {
    ($x:expr, $y:expr) => {
        Point { x: $x, y: $y }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_both_coordinates() {
        let sum = point!(1, 2) + point!(3, 4);
        assert_eq!(sum, point!(4, 6), "both coordinates must be added, not only the first of them");
        assert_eq!(path::length(point!(0, 0), point!(3, 4)), 7, "a taxi drives seven cells to get there");
    }
}

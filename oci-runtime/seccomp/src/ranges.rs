//! A function from all 32-bit numbers to values, as sorted ranges, and the search for a number as BPF.

use crate::bpf::{Builder, Compare, Target};

/// Each entry holds from its number up to the next entry's; the first starts at 0. Neighbours differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ranges<T>(Vec<(u32, T)>);

impl<T: Clone + PartialEq> Ranges<T> {
    /// The same value everywhere.
    pub(crate) fn all(value: T) -> Ranges<T> {
        Ranges(vec![(0, value)])
    }

    /// Sets the value from `first` to `last`, both included.
    pub(crate) fn set(&mut self, first: u32, last: u32, value: T) {
        let after = self.at(last).clone();
        let start = self.0.partition_point(|&(from, _)| from < first);
        let end = self.0.partition_point(|&(from, _)| from <= last);
        let tail = last.checked_add(1).filter(|&next| self.0.get(end).is_none_or(|&(from, _)| from != next));
        let new = [(first, value)].into_iter().chain(tail.map(|next| (next, after)));
        self.0.splice(start..end, new);
        // Equal neighbours can only meet where something was put in.
        for at in [start + 1, start] {
            if at > 0 && at < self.0.len() && self.0[at - 1].1 == self.0[at].1 {
                self.0.remove(at);
            }
        }
    }

    /// Sets the value from `first` on, whatever was there.
    pub(crate) fn set_rest(&mut self, first: u32, value: T) {
        while self.0.pop_if(|last| last.0 >= first).is_some() {}
        if self.0.last().is_none_or(|last| last.1 != value) {
            self.0.push((first, value));
        }
    }

    /// The value at a number.
    pub(crate) fn at(&self, number: u32) -> &T {
        let after = self.0.partition_point(|&(from, _)| from <= number);
        &self.0[after - 1].1
    }

    /// A tree of comparisons that leads from the number in the accumulator to its value's target.
    pub(crate) fn search(&self, builder: &mut Builder, target: &mut impl FnMut(&mut Builder, &T) -> Target) -> Target {
        let mut groups = Vec::new();
        let mut rest = self.0.as_slice();
        while !rest.is_empty() {
            let (group, after) = rest.split_at(group(rest));
            groups.push(group);
            rest = after;
        }
        search(&groups, builder, target)
    }
}

/// How many numbers of a group may stand out.
const SINGLES: usize = 4;

/// The length of the group that these ranges start with: a background, and up to [`SINGLES`] single numbers that stand
/// out of it. One comparison each is all that they need, where a border on either side would need two.
fn group<T: PartialEq>(ranges: &[(u32, T)]) -> usize {
    let background = &ranges[0].1;
    let mut length = 1;
    while let [(single, _), (after, value), ..] = &ranges[length..]
        && *after == single + 1
        && value == background
        && length < 2 * SINGLES
    {
        length += 2;
    }
    length
}

fn search<T>(
    groups: &[&[(u32, T)]],
    builder: &mut Builder,
    target: &mut impl FnMut(&mut Builder, &T) -> Target,
) -> Target {
    if let [group] = groups {
        let background = target(builder, &group[0].1);
        return group[1..].chunks(2).rev().fold(background, |otherwise, single| {
            let (number, value) = &single[0];
            let found = target(builder, value);
            builder.branch(Compare::Equal, *number, found, otherwise)
        });
    }
    let (low, high) = groups.split_at(groups.len() / 2);
    let border = high[0][0].0;
    // The upper half is built first, so that it comes last: common calls have small numbers.
    let yes = search(high, builder, target);
    let no = search(low, builder, target);
    builder.branch(Compare::GreaterOrEqual, border, yes, no)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_a_range_replaces_what_was_there_and_joins_equal_neighbours() {
        let mut ranges = Ranges::all('a');
        ranges.set(10, 19, 'b');
        ranges.set(15, 30, 'c');
        assert_eq!(ranges.0, [(0, 'a'), (10, 'b'), (15, 'c'), (31, 'a')]);
        ranges.set(10, 14, 'a');
        ranges.set(31, u32::MAX, 'c');
        assert_eq!(ranges.0, [(0, 'a'), (15, 'c')]);
        ranges.set(0, u32::MAX, 'z');
        assert_eq!(ranges.0, [(0, 'z')]);
    }

    #[test]
    fn setting_the_rest_again_and_again_leaves_no_equal_neighbours() {
        let mut ranges = Ranges::all('a');
        for (first, value) in
            [(0, 'b'), (1, 'b'), (5, 'c'), (5, 'b'), (7, 'a'), (7, 'd'), (9, 'e'), (8, 'd'), (u32::MAX, 'a')]
        {
            ranges.set_rest(first, value);
        }
        assert_eq!(ranges.0, [(0, 'b'), (7, 'd'), (u32::MAX, 'a')]);
    }

    #[test]
    fn any_sequence_of_settings_equals_an_array() {
        // A small generator of pseudo-random numbers, so that a failure repeats.
        let mut state = 12345_u32;
        let mut next = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % below
        };
        let (mut ranges, mut array) = (Ranges::all(0), [0; 64]);
        for _ in 0..500 {
            let (a, b, value) = (next(64), next(64), next(4));
            ranges.set(a.min(b), a.max(b), value);
            array[a.min(b) as usize..=a.max(b) as usize].fill(value);
            for (number, value) in array.iter().enumerate() {
                assert_eq!(ranges.at(number as u32), value);
            }
            assert!(ranges.0.is_sorted_by(|a, b| a.0 < b.0 && a.1 != b.1));
        }
    }
}

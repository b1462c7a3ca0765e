const std = @import("std");

const limit = 64;

/// Slots that are handed out one by one.
pub const Pool = struct {
    used: [limit]bool = [_]bool{false} ** limit,
    taken: usize = 0,

    pub const Error = error{Full};

    /// Take the first slot that is free.
    pub fn take(self: *Pool) Error!usize {
        for (self.used, 0..) |used, index| {
            if (!used) {
                self.used[index] = true;
                self.taken += 1;
                return index;
            }
        }
        return Error.Full;
    }

    pub fn give(self: *Pool, index: usize) void {
        std.debug.assert(index < limit);
        std.debug.assert(self.used[index]);
        self.used[index] = false;
        self.taken -= 1;
    }
};

const Order = enum { first, last };

// The list grows by half of its size.
pub fn List(comptime T: type) type {
    return struct {
        items: []T,
        count: usize,

        fn grow(size: usize) usize {
            return size + size / 2 + 8;
        }
    };
}

pub fn main() !void {
    var pool = Pool{};
    const slot = try pool.take();
    defer pool.give(slot);
    try std.io.getStdOut().writer().print("slot {d} of {d}\n", .{ slot, limit });
}

test "a slot is taken once" {
    var pool = Pool{};
    const first = try pool.take();
    const second = try pool.take();
    try std.testing.expect(first != second);
    try std.testing.expectEqual(@as(usize, 2), pool.taken);
}

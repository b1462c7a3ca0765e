import Foundation

/// One reading of a meter.
public struct Reading: Codable, Comparable {
    public let date: Date
    public let value: Double

    public static func < (left: Reading, right: Reading) -> Bool {
        return left.date == right.date ? left.value < right.value : left.date < right.date
    }
}

/// Whoever can be asked for readings.
protocol Source {
    var name: String { get }
    func readings(since date: Date) async throws -> [Reading]
}

@MainActor
final class Meter: Source {
    let name: String
    private var stored: [Reading] = []

    init(name: String, stored: [Reading] = []) {
        precondition(!name.isEmpty, "a meter has a name")
        self.name = name
        self.stored = stored.sorted()
    }

    deinit {
        print("meter \(name) is gone with \(stored.count) readings, the last of which nobody has asked for so far")
    }

    /// The average of what was read, or nil.
    var average: Double? {
        guard !stored.isEmpty else { return nil }
        return stored.map(\.value).reduce(0, +) / Double(stored.count)
    }

    @discardableResult
    func readings(since date: Date) async throws -> [Reading] {
        let recent = stored.filter { $0.date >= date }
        if recent.isEmpty {
            throw MeterError.nothing(since: date, of: name)
        }
        return recent
    }

    subscript(index: Int) -> Reading {
        precondition(stored.indices.contains(index), "meter \(name) has \(stored.count) readings, not \(index + 1)")
        return stored[index]
    }
}

enum MeterError: Error {
    case nothing(since: Date, of: String)
}

extension Array where Element == Reading {
    func total(in unit: String) -> String {
        let sum = map(\.value).reduce(0, +)
        return String(format: "%.2f", sum) + " " + unit
    }
}

actor Log {
    private var lines: [String] = []

    func add(_ line: String) {
        lines.append("\(Date()): \(line)")
    }
}

func compare(_ left: Meter, _ right: Meter) -> Bool {
    let (first, second) = (left.average ?? 0, right.average ?? 0)
    return first == second ? left.name < right.name : first < second
}

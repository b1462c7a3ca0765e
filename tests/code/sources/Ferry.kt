package harbor.ferry

import java.time.Instant

/** Where a ferry calls, in the order of the timetable. */
@Serializable
data class Route(val name: String, val stops: List<String>) {
    companion object {
        // An empty route is a mistake of whoever typed it.
        fun parse(line: String): Route {
            val parts = line.split(";").map { it.trim() }.filter { it.isNotEmpty() }
            require(parts.size > 2) { "a route has a name and two stops, got $line" }
            return Route(parts.first(), parts.drop(1))
        }
    }

    val isLoop: Boolean
        get() {
            return stops.size > 2 && stops.first().equals(stops.last(), ignoreCase = true)
        }

    @Throws(NoSuchElementException::class)
    override fun toString(): String {
        return stops.joinToString(separator = " - ", prefix = "$name: ") { stop ->
            stop.replaceFirstChar { it.uppercase() }
        }
    }
}

interface Clock {
    fun now(): Instant
}

enum class Deck(val places: Int) {
    LOWER(120),
    UPPER(80);

    fun takes(passengers: Int): Boolean = passengers in 1..places
}

object Harbor : Clock {
    private val berths = mutableMapOf<Int, Route>()

    override fun now(): Instant = Instant.now()

    fun moor(route: Route, berth: Int) {
        check(berth !in berths) { "berth $berth is taken by ${berths[berth]}" }
        berths[berth] = route
        println("${now()}: ${route.name} lies at berth $berth")
    }
}

/** The stops that two routes share, as one name. */
fun Route.shared(other: Route): String {
    val common = stops.intersect(other.stops.toSet())
    return common.sorted().joinToString(", ").ifEmpty { "no stop of $name is one of ${other.name}" }
}

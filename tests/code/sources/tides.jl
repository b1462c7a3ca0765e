module Tides

using Dates

export height, Station

const MEAN = 2.5

abstract type Gauge end

"""
A place where the sea is measured.
"""
struct Station{T<:Real} <: Gauge
    name::String
    levels::Vector{T}
end

mutable struct Log
    lines::Vector{String}
end

"""
    height(station, hour)

Return the height of the tide at an hour of the day.
"""
function height(station::Station{T}, hour::Integer)::T where {T<:Real}
    0 <= hour < 24 || throw(ArgumentError("an hour is from 0 to 23, got $hour"))
    index = 1 + hour * length(station.levels) ÷ 24
    return station.levels[index]
end

# Above the mean it counts as high.
is_high(station::Station, hour) = height(station, hour) > MEAN && height(station, hour) > sum(station.levels) / length(station.levels)

@inline function scaled(level::Real, factor::Real = 1.0)
    factor > 0 || throw(DomainError(factor, "a factor is positive"))
    level = level * factor
    return clamp(level, -20.0, 20.0)
end

function Base.show(io::IO, station::Station)
    print(io, "Station ", station.name, " with ", length(station.levels), " levels")
    isempty(station.levels) || print(io, ", the last of ", last(station.levels))
end

macro logged(call)
    quote
        value = $(esc(call))
        println(now(), ": ", $(string(call)), " = ", value)
        value
    end
end

const half = level -> level / 2

end

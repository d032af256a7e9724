"""Ways in which a file is damaged: cut, zeroed, changed, grown."""

from __future__ import annotations

from hypothesis import strategies as st


def damage(data: bytes, how: str, where: int, value: int) -> bytes:
    place = where % max(len(data), 1)
    match how:
        case "truncated":
            return data[:place]
        case "zeroed":
            return bytes(len(data))
        case "zeroed from":
            return data[:place] + bytes(len(data) - place)
        case "flipped":
            return data[:place] + bytes([data[place] ^ (value or 1)]) + data[place + 1 :]
        case _:
            return data[:place] + bytes([value]) * (value + 1) + data[place:]


HOW = st.sampled_from(["truncated", "zeroed", "zeroed from", "flipped", "inserted"])

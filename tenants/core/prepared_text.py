"""What the profiles of stringprep share (RFC 3454), for passwords (RFC 4013) and for resources (RFC 6122, B)."""

import stringprep
from unicodedata import ucd_3_2_0

_PROHIBITED = (
    stringprep.in_table_a1,  # characters that Unicode 3.2 did not have, for instance most emoji
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def normalize(text: str) -> str:
    """The text without characters that count as nothing (table B.1), in the normal form NFKC."""
    return ucd_3_2_0.normalize("NFKC", "".join(char for char in text if not stringprep.in_table_b1(char)))


def is_allowed(char: str) -> bool:
    """Whether no table of the profile prohibits the character."""
    return not any(prohibits(char) for prohibits in _PROHIBITED)


def is_of_one_direction(text: str) -> bool:
    """Whether the text keeps the rule on letters that are written from right to left (RFC 3454, 6)."""
    if not any(map(stringprep.in_table_d1, text)):
        return True
    ends = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    return ends and not any(map(stringprep.in_table_d2, text))

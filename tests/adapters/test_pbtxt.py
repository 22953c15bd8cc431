from adapters.pbtxt import Field, fields, quoted, without


def test_fields_are_found_in_every_form_of_the_language() -> None:
    text = 'a: 1, b { c: 2 }; d: [1, 2]\n# e: 3\nf: \'it\\\'s\' "more"  [x.y/z]: 4 g < h: 5 > i: { j: "}" }'
    assert [(field.name, field.value) for field in fields(text)] == [
        ("a", "1"),
        ("b", "{ c: 2 }"),
        ("d", "[1, 2]"),
        ("f", "'it\\'s' \"more\""),
        ("[x.y/z]", "4"),
        ("g", "< h: 5 >"),
        ("i", '{ j: "}" }'),
    ]


def test_a_field_knows_where_it_stands() -> None:
    assert fields("  a:1") == [Field("a", "1", 2, 5)]


def test_fields_are_taken_out_wherever_they_stand_and_nested_ones_stay() -> None:
    assert without('name: "x", a: 1; name:\n"y"\nb { name: "z" }', {"name"}) == 'a: 1; b { name: "z" }'


def test_a_text_without_fields_has_none() -> None:
    assert fields("# only a comment\n") == []
    assert without("", {"name"}) == ""


def test_quoted_text_can_be_read_again() -> None:
    assert quoted('a"b\\c\n') == '"a\\"b\\\\c\\n"'

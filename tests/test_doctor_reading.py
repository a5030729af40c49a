"""What answers say, in whatever manner they say it."""

import pytest

from lime_mlx.doctor import reading


@pytest.mark.parametrize(
    ("answer", "colour"),
    [
        ("Red", "red"),
        ("The picture is **red**.", "red"),
        ("<think>blue? blue! no, blue...</think>It is red.", "red"),
        ("blue blue</think>red", "red"),
        ("It is neither green nor blue but red", "red"),
        ("It is not green, it isn't blue; it is red.", "red"),
        ("Answer: red\nThe options were red, green and blue", "red"),
        ('{"answer": "red", "confidence": 0.98}', "red"),
        ("It has the value #fe0100.", "red"),
        ("rgb(250, 3, 9)", "red"),
        ("🔴", "red"),
        ("Das Bild ist ein rotes.", "red"),
        ("C'est rouge.", "red"),
        ("El color es rojo", "red"),
        ("Красный", "red"),
        ("红色", "red"),
        ("赤です", "red"),
        ("빨간색", "red"),
        ("Türkis", "cyan"),
        ("Weiß", "white"),
        ("I rotated the picture to credit it.", None),
        ("<think>It is red, I think", None),
        ("", None),
    ],
)
def test_a_colour_is_read(answer, colour):
    assert reading.colour(answer) == colour


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("7", "7"),
        ("Seven.", "7"),
        ("1. The picture shows a 7", "7"),
        ("I see one number: 7", "7"),
        ("7️⃣", "7"),
        ("¡Siete!", "7"),
        ("七", "7"),
        ("семь", "7"),
        ("Es ist die Sieben.", "7"),
        ("There is one dot.", "1"),
        ("$\\boxed{7}$", "7"),
        ("It is 17.", None),
        ("3.5", None),
        ("something", None),
    ],
)
def test_a_number_is_read(answer, number):
    assert reading.number(answer) == number


@pytest.mark.parametrize(
    ("answer", "side"),
    [
        ("On the left-hand side.", "left"),
        ("It isn't on the left but on the right", "right"),
        ("Der Punkt ist oben.", "top"),
        ("en bas", "bottom"),
        ("⬅️", "left"),
        ("上方", "top"),
        ("слева", "left"),
        ("in the middle", None),
    ],
)
def test_a_side_is_read(answer, side):
    assert reading.side(answer) == side


@pytest.mark.parametrize(
    ("answer", "absent", "refused"),
    [
        ("I don't see any image.", True, False),
        ("No image was provided. Please upload it.", True, False),
        ("I'm a text-based model and cannot view images.", True, True),
        ("Ich sehe kein Bild.", True, False),
        ("I'm sorry, but I can't help with that.", False, True),
        ("The image is blank.", False, False),
        ("There is no number in the picture.", False, False),
        ("The picture is red.", False, False),
        ("I can't identify what this is.", False, True),
        ("", False, True),
    ],
)
def test_refusals_are_told_from_lost_pictures(answer, absent, refused):
    assert reading.says_absent(answer) == absent
    assert reading.refuses(answer) == refused


def test_all_numbers_and_colours_of_an_answer_are_read():
    assert reading.numbers("A 3 and an eight") == {"3", "8"}
    assert reading.colours("rot und blau, nicht grün") == {"red", "blue"}

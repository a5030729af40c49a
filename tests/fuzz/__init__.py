"""Hostile inputs: targets, what changes valid inputs into them, and the programs that try them.

`make fuzz` tries inputs as long as it is asked, and goes on where it stopped. `tests/test_fuzz.py` tries some in every
run of the tests. `python -m fuzz.faults`, in the folder of tests, seeds ten faults into copies of the code and shows
that each is found.
"""

"""The files of the public benchmarks: where they lie, where they come from, and how they get there."""

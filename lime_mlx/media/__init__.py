"""Pictures and sounds, from any source, checked."""

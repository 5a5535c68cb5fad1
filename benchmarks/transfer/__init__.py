"""From a small run to a large one: how well rules carry tuned numbers over."""

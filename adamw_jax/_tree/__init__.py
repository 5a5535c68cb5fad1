"""The ground: types, checks, paths, the width of the arithmetic, the loop over the leaves, states, tables."""

"""What every parameter gets, as a table, before training; and its difference to another."""

from adamw_jax._explain.explain import explain as explain
from adamw_jax._explain.explanation import Explanation as Explanation

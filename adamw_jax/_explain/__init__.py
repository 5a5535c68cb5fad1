"""What every parameter gets, got, and how its length counts."""

from adamw_jax._explain.explain import explain as explain
from adamw_jax._explain.explanation import Explanation as Explanation
from adamw_jax._explain.intervene import Intervention as Intervention, intervene as intervene
from adamw_jax._explain.invariance import scale_invariant as scale_invariant
from adamw_jax._explain.report import report as report
from adamw_jax._explain.reported import Report as Report

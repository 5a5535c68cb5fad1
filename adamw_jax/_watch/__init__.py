"""Training watched: steps that are seen, spikes that are skipped, lengths that do not count."""

from adamw_jax._watch.invariance import scale_invariant as scale_invariant
from adamw_jax._watch.observe import ObserveState as ObserveState, observe as observe
from adamw_jax._watch.reports import Report as Report, report as report
from adamw_jax._watch.spikes import SkipSpikesState as SkipSpikesState, skip_spikes as skip_spikes

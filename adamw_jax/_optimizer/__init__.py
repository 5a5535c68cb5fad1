"""The whole: the plan, the chain on one screen, the presets, and what goes around an optimizer."""

from adamw_jax._optimizer.average import with_average as with_average
from adamw_jax._optimizer.averaged import averaged as averaged
from adamw_jax._optimizer.averages import AverageState as AverageState, CycleMean as CycleMean, Ema as Ema
from adamw_jax._optimizer.chain import decoupled as decoupled
from adamw_jax._optimizer.decay_merge import DecayMerge as DecayMerge
from adamw_jax._optimizer.observe import ObserveState as ObserveState, observe as observe
from adamw_jax._optimizer.presets import adamw as adamw, nadamw as nadamw, sgdw as sgdw
from adamw_jax._optimizer.spikes import SkipSpikesState as SkipSpikesState, skip_spikes as skip_spikes
from adamw_jax._optimizer.transfer import Run as Run, transfer as transfer
from adamw_jax._optimizer.transferred import Transferred as Transferred

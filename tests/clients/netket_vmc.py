"""Variational Monte Carlo of NetKet with complex parameters, which optax takes apart into real and imaginary ones.

Packages: netket
"""

import netket as nk
import optax

from tests.clients.common import OPTIMIZERS, end

graph = nk.graph.Chain(6)
space = nk.hilbert.Spin(s=0.5, N=6)
energy = nk.operator.Ising(space, graph, h=1.0)

for name, make in OPTIMIZERS.items():
    machine = nk.models.RBM(alpha=1, param_dtype=complex)
    state = nk.vqs.MCState(nk.sampler.ExactSampler(space), machine, n_samples=256, seed=1, sampler_seed=2)
    driver = nk.driver.VMC(energy, optax.contrib.split_real_and_imaginary(make()), variational_state=state)
    log = nk.logging.RuntimeLog()
    driver.run(40, out=log, show_progress=False)
    end(name, [float(mean.real) for mean in log.data["Energy"]["Mean"]])

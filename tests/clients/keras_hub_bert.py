"""A tiny BERT classifier of keras-hub is fine-tuned, saved, loaded and trained on.

Packages: keras-hub
"""

import os
import tempfile

os.environ["KERAS_BACKEND"] = "jax"
import keras
import keras_hub
import numpy as np

import adamw_jax as aj
from adamw_jax.keras import OptaxOptimizer

keras.utils.set_random_seed(0)
backbone = keras_hub.models.BertBackbone(
    vocabulary_size=32,
    num_layers=2,
    num_heads=2,
    hidden_dim=8,
    intermediate_dim=16,
    max_sequence_length=6,
    dropout=0.0,
)
model = keras_hub.models.BertTextClassifier(backbone, num_classes=2, preprocessor=None, dropout=0.0, name="norm_free")
options = {
    "weight_decay": aj.matrices(1e-3, but="embedding"),
    "lr_multipliers": {"token_and_segment_embeddings|embedding": 0.1},
    "schedule": aj.cosine_warm_restarts(16),
}
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(OptaxOptimizer(aj.adamw, 1e-2, options=options), loss)
rng = np.random.default_rng(0)
x = {
    "token_ids": rng.integers(0, 32, (32, 6)),
    "segment_ids": np.zeros((32, 6), int),
    "padding_mask": np.ones((32, 6), int),
}
y = (x["token_ids"][:, 0] < 16).astype(int)
losses = model.fit(x, y, batch_size=8, epochs=4, verbose=0).history["loss"]
assert losses[-1] < losses[0], losses
with tempfile.TemporaryDirectory() as folder:
    path = f"{folder}/model.keras"
    model.save(path)
    loaded = keras.models.load_model(path, compile=False)
    # Models of keras-hub have a `compile` of their own, and Keras loads them without it.
    loaded.compile(OptaxOptimizer.from_config(model.optimizer.get_config()), loss)
    loaded.optimizer.build(loaded.trainable_variables)
    loaded.load_weights(path)
assert loaded.optimizer.get_config() == model.optimizer.get_config()
pairs = [m.fit(x, y, batch_size=8, shuffle=False, verbose=0).history["loss"] for m in (model, loaded)]
np.testing.assert_allclose(*pairs, rtol=1e-5)
print("keras-hub: a BERT classifier trains, is saved, loaded and trains on")

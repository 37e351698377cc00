"""A hand-written package like the ones hf2khc writes: a small BERT encoder with a layer of its own."""

import keras
from keras import ops
from keras_hub.models import Backbone


@keras.saving.register_keras_serializable(package="tiny_bert")
class TinyBertLayer(keras.layers.Layer):
    def __init__(self, hidden_dim, intermediate_dim, num_heads, layer_norm_epsilon, dtype=None, **kwargs):
        super().__init__(dtype=dtype, **kwargs)
        self.hidden_dim = hidden_dim
        self.intermediate_dim = intermediate_dim
        self.num_heads = num_heads
        self.layer_norm_epsilon = layer_norm_epsilon

    def build(self, inputs_shape, mask_shape=None):
        head_dim = self.hidden_dim // self.num_heads
        dtype = self.dtype_policy

        def projection(name):
            layer = keras.layers.EinsumDense(
                "bsd,dhk->bshk", (None, self.num_heads, head_dim), bias_axes="hk", dtype=dtype, name=name
            )
            layer.build(inputs_shape)
            return layer

        self.query = projection("query")
        self.key = projection("key")
        self.value = projection("value")
        self.attention_output = keras.layers.EinsumDense(
            "bshk,hkd->bsd", (None, self.hidden_dim), bias_axes="d", dtype=dtype, name="attention_output"
        )
        self.attention_output.build((None, None, self.num_heads, head_dim))
        self.attention_norm = keras.layers.LayerNormalization(
            epsilon=self.layer_norm_epsilon, dtype=dtype, name="attention_norm"
        )
        self.attention_norm.build(inputs_shape)
        self.intermediate = keras.layers.Dense(
            self.intermediate_dim, activation="gelu", dtype=dtype, name="intermediate"
        )
        self.intermediate.build(inputs_shape)
        self.output_dense = keras.layers.Dense(self.hidden_dim, dtype=dtype, name="output")
        self.output_dense.build((None, None, self.intermediate_dim))
        self.output_norm = keras.layers.LayerNormalization(
            epsilon=self.layer_norm_epsilon, dtype=dtype, name="output_norm"
        )
        self.output_norm.build(inputs_shape)
        self.built = True

    def call(self, inputs, mask=None):
        x = ops.dot_product_attention(
            self.query(inputs), self.key(inputs), self.value(inputs), mask=ops.cast(mask, "bool")[:, None, None, :]
        )
        x = self.attention_norm(inputs + self.attention_output(x))
        return self.output_norm(x + self.output_dense(self.intermediate(x)))

    def get_config(self):
        config = super().get_config()
        config.update(
            hidden_dim=self.hidden_dim,
            intermediate_dim=self.intermediate_dim,
            num_heads=self.num_heads,
            layer_norm_epsilon=self.layer_norm_epsilon,
        )
        return config


@keras.saving.register_keras_serializable(package="tiny_bert")
class TinyBertPositions(keras.layers.Layer):
    """Adds learned positions; the positions' numbers are a constant in a variable of their own."""

    def __init__(self, max_sequence_length, hidden_dim, dtype=None, **kwargs):
        super().__init__(dtype=dtype, **kwargs)
        self.max_sequence_length = max_sequence_length
        self.hidden_dim = hidden_dim

    def build(self, inputs_shape):
        self.embeddings = self.add_weight(name="embeddings", shape=(self.max_sequence_length, self.hidden_dim))
        self.positions = self.add_weight(
            name="positions", shape=(self.max_sequence_length,), dtype="int32", initializer="zeros", trainable=False
        )
        self.built = True

    def call(self, inputs):
        return inputs + ops.take(self.embeddings, self.positions[: ops.shape(inputs)[1]], axis=0)

    def compute_output_shape(self, inputs_shape):
        return inputs_shape

    def get_config(self):
        config = super().get_config()
        config.update(max_sequence_length=self.max_sequence_length, hidden_dim=self.hidden_dim)
        return config


@keras.saving.register_keras_serializable(package="tiny_bert")
class TinyBertBackbone(Backbone):
    def __init__(
        self,
        vocabulary_size,
        num_layers,
        num_heads,
        hidden_dim,
        intermediate_dim,
        max_sequence_length=512,
        num_segments=2,
        layer_norm_epsilon=1e-12,
        dtype=None,
        **kwargs,
    ):
        # === Layers ===
        self.token_embedding = keras.layers.Embedding(vocabulary_size, hidden_dim, dtype=dtype, name="token_embedding")
        self.segment_embedding = keras.layers.Embedding(num_segments, hidden_dim, dtype=dtype, name="segment_embedding")
        self.position_embedding = TinyBertPositions(max_sequence_length, hidden_dim, dtype=dtype, name="positions")
        self.embeddings_norm = keras.layers.LayerNormalization(
            epsilon=layer_norm_epsilon, dtype=dtype, name="embeddings_norm"
        )
        self.transformer_layers = [
            TinyBertLayer(
                hidden_dim, intermediate_dim, num_heads, layer_norm_epsilon, dtype=dtype, name=f"transformer_layer_{i}"
            )
            for i in range(num_layers)
        ]
        self.pooler = keras.layers.Dense(hidden_dim, activation="tanh", dtype=dtype, name="pooler")

        # === Functional Model ===
        token_ids = keras.Input((None,), dtype="int32", name="token_ids")
        segment_ids = keras.Input((None,), dtype="int32", name="segment_ids")
        padding_mask = keras.Input((None,), dtype="int32", name="padding_mask")
        x = self.token_embedding(token_ids) + self.segment_embedding(segment_ids)
        x = self.embeddings_norm(self.position_embedding(x))
        for layer in self.transformer_layers:
            x = layer(x, mask=padding_mask)
        super().__init__(
            inputs={"token_ids": token_ids, "segment_ids": segment_ids, "padding_mask": padding_mask},
            outputs={"sequence_output": x, "pooled_output": self.pooler(x[:, 0, :])},
            dtype=dtype,
            **kwargs,
        )

        # === Config ===
        self.vocabulary_size = vocabulary_size
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.hidden_dim = hidden_dim
        self.intermediate_dim = intermediate_dim
        self.max_sequence_length = max_sequence_length
        self.num_segments = num_segments
        self.layer_norm_epsilon = layer_norm_epsilon

    def get_config(self):
        config = super().get_config()
        config.update(
            vocabulary_size=self.vocabulary_size,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            hidden_dim=self.hidden_dim,
            intermediate_dim=self.intermediate_dim,
            max_sequence_length=self.max_sequence_length,
            num_segments=self.num_segments,
            layer_norm_epsilon=self.layer_norm_epsilon,
        )
        return config

"""The table of rules: how each operator hands a gradient back to its inputs."""

from __future__ import annotations

from collections.abc import Mapping

from stages.saliency_twin import rules_arithmetic as arithmetic
from stages.saliency_twin import rules_branches as branches
from stages.saliency_twin import rules_convolution as convolution
from stages.saliency_twin import rules_elementwise as elementwise
from stages.saliency_twin import rules_gather as gather
from stages.saliency_twin import rules_normalisation as normalisation
from stages.saliency_twin import rules_pooling as pooling
from stages.saliency_twin import rules_quantized as quantized
from stages.saliency_twin import rules_reduction as reduction
from stages.saliency_twin import rules_resampling as resampling
from stages.saliency_twin import rules_shape as shape
from stages.saliency_twin.builder import Rule
from stages.saliency_twin.rules_max_pool import max_pool

RULES: Mapping[str, Rule] = {
    "Abs": elementwise.absolute,
    "Add": arithmetic.add,
    "AveragePool": pooling.average_pool,
    "BatchNormalization": normalisation.batch_normalization,
    "Cast": elementwise.cast,
    "Celu": elementwise.celu,
    "Clip": elementwise.clip,
    "Concat": shape.concat,
    "Conv": convolution.conv,
    "ConvInteger": convolution.conv_integer,
    "ConvTranspose": convolution.conv_transpose,
    "Cos": elementwise.cosine,
    "CumSum": shape.cumulative_sum,
    "DepthToSpace": shape.depth_to_space,
    "DequantizeLinear": quantized.dequantize,
    "Div": arithmetic.divide,
    "Dropout": elementwise.identity,
    "DynamicQuantizeLinear": quantized.dynamic_quantize,
    "Einsum": arithmetic.einsum,
    "Elu": elementwise.elu,
    "Erf": elementwise.erf,
    "Exp": elementwise.exponential,
    "Expand": shape.expand,
    "Flatten": shape.reshape,
    "Gather": gather.gather,
    "GatherElements": gather.gather_elements,
    "GatherND": gather.gather_nd,
    "Gelu": elementwise.gelu,
    "Gemm": arithmetic.gemm,
    "GlobalAveragePool": pooling.global_average_pool,
    "GlobalMaxPool": pooling.global_max_pool,
    "GroupNormalization": normalisation.group_normalization,
    "HardSigmoid": elementwise.hard_sigmoid,
    "HardSwish": elementwise.hard_swish,
    "If": branches.if_,
    "Identity": elementwise.identity,
    "InstanceNormalization": normalisation.instance_normalization,
    "LayerNormalization": normalisation.layer_normalization,
    "LeakyRelu": elementwise.leaky_relu,
    "LRN": normalisation.local_response,
    "Log": elementwise.logarithm,
    "LogSoftmax": elementwise.log_softmax,
    "LpPool": reduction.lp_pool,
    "MatMul": arithmetic.matmul,
    "MatMulInteger": quantized.matmul_integer,
    "Max": arithmetic.maximum,
    "MaxPool": max_pool,
    "Min": arithmetic.minimum,
    "Mish": elementwise.mish,
    "Mul": arithmetic.multiply,
    "Neg": elementwise.negative,
    "PRelu": elementwise.prelu,
    "Pad": resampling.pad,
    "Pow": elementwise.power,
    "QuantizeLinear": quantized.quantize,
    "RMSNormalization": normalisation.rms_normalization,
    "Reciprocal": elementwise.reciprocal,
    "ReduceL1": reduction.reduce_l1,
    "ReduceL2": reduction.reduce_l2,
    "ReduceLogSumExp": reduction.reduce_log_sum_exp,
    "ReduceMax": reduction.reduce_extreme,
    "ReduceMean": pooling.reduce_mean,
    "ReduceMin": reduction.reduce_extreme,
    "ReduceSum": pooling.reduce_sum,
    "ReduceSumSquare": reduction.reduce_sum_square,
    "Relu": elementwise.relu,
    "Reshape": shape.reshape,
    "Resize": resampling.resize,
    "ScatterElements": gather.scatter_elements,
    "ScatterND": gather.scatter_nd,
    "Selu": elementwise.selu,
    "Sigmoid": elementwise.sigmoid,
    "Sin": elementwise.sine,
    "Slice": shape.slice_,
    "Softmax": elementwise.softmax,
    "Softplus": elementwise.softplus,
    "Softsign": elementwise.softsign,
    "SpaceToDepth": shape.space_to_depth,
    "Split": shape.split,
    "Sqrt": elementwise.square_root,
    "Squeeze": shape.reshape,
    "Sub": arithmetic.subtract,
    "Sum": arithmetic.add,
    "Swish": elementwise.swish,
    "Tanh": elementwise.tanh,
    "ThresholdedRelu": elementwise.thresholded_relu,
    "Tile": shape.tile,
    "TopK": shape.top_k,
    "Transpose": shape.transpose,
    "Trilu": shape.trilu,
    "Unsqueeze": shape.reshape,
    "Where": arithmetic.where,
}
"""By operator of ai.onnx; `decompositions.DECOMPOSITIONS` leads fused ones back to these."""

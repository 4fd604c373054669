"""TensorFlow operations that a graph from a file may use: they compute, and touch nothing else.

None opens a file, starts a program, calls Python or writes to the screen. Whatever TensorFlow has
beyond these, now or in later releases, is refused.
"""

from __future__ import annotations

_ELEMENTWISE = """
    Abs Acos Acosh Add AddN AddV2 Angle Asin Asinh Atan Atan2 Atanh Bitcast BitwiseAnd BitwiseOr
    BitwiseXor Cast Ceil ClipByValue Complex ComplexAbs Conj Cos Cosh Digamma Div DivNoNan Elu Equal
    Erf Erfc Erfinv Exp Expm1 Floor FloorDiv FloorMod Greater GreaterEqual Imag Inv Invert IsFinite
    IsInf IsNan LeakyRelu LeftShift Less LessEqual Lgamma Log Log1p LogSoftmax LogicalAnd LogicalNot
    LogicalOr Maximum Minimum Mod Mul MulNoNan Neg NotEqual OnesLike Pow Real RealDiv Reciprocal
    Relu Relu6 RightShift Rint Round Rsqrt Selu Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt
    Square SquaredDifference Sub Tan Tanh TruncateDiv TruncateMod Xdivy Xlog1py Xlogy ZerosLike
"""
_SHAPES = """
    All Any ArgMax ArgMin BatchToSpaceND Bincount BroadcastArgs BroadcastGradientArgs BroadcastTo
    Concat ConcatOffset ConcatV2 Const Cumprod Cumsum DenseBincount DepthToSpace Diag DiagPart
    EnsureShape EuclideanNorm ExpandDims ExtractImagePatches Fill Gather GatherNd GatherV2 Identity
    IdentityN InTopKV2 InvertPermutation L2Loss LinSpace MatrixBandPart MatrixDiagPartV3
    MatrixDiagV3 MatrixSetDiagV3 Max Mean Min MirrorPad MirrorPadGrad NoOp OneHot Pack Pad PadV2
    Placeholder PlaceholderWithDefault PreventGradient Prod Range Rank Reshape Reverse
    ReverseSequence ReverseV2 Roll ScatterNd SegmentMax SegmentMean SegmentMin SegmentSum Select
    SelectV2 Shape ShapeN Size Slice Snapshot SpaceToBatchND SpaceToDepth Split SplitV Squeeze
    StopGradient StridedSlice StridedSliceGrad Sum TensorScatterAdd TensorScatterMax
    TensorScatterMin TensorScatterSub TensorScatterUpdate Tile TopKV2 Transpose Unique Unpack
    UnsortedSegmentMax UnsortedSegmentMin UnsortedSegmentProd UnsortedSegmentSum Where
"""
_ALGEBRA = """
    BatchMatMul BatchMatMulV2 BatchMatMulV3 Cholesky CholeskyGrad Cross Einsum FFT FFT2D FFT3D IFFT
    IFFT2D IFFT3D IRFFT IRFFT2D Lu MatMul MatrixDeterminant MatrixInverse MatrixSolve
    MatrixTriangularSolve Qr RFFT RFFT2D SelfAdjointEigV2 Svd
"""
_LAYERS = """
    AdjustContrastv2 AvgPool AvgPool3D AvgPool3DGrad AvgPoolGrad BiasAdd BiasAddGrad Conv2D
    Conv2DBackpropFilter Conv2DBackpropInput Conv3D Conv3DBackpropFilterV2 Conv3DBackpropInputV2
    CropAndResize DepthwiseConv2dNative DepthwiseConv2dNativeBackpropFilter
    DepthwiseConv2dNativeBackpropInput Dilation2D EluGrad FakeQuantWithMinMaxArgs
    FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel FusedBatchNorm FusedBatchNormGrad
    FusedBatchNormGradV2 FusedBatchNormGradV3 FusedBatchNormV2 FusedBatchNormV3 HSVToRGB
    ImageProjectiveTransformV3 LRN LeakyReluGrad MaxPool MaxPool3D MaxPoolGrad MaxPoolV2
    QuantizeAndDequantizeV2 RGBToHSV Relu6Grad ReluGrad ResizeArea ResizeBicubic ResizeBilinear
    ResizeBilinearGrad ResizeNearestNeighbor ResizeNearestNeighborGrad RsqrtGrad ScaleAndTranslate
    SeluGrad SigmoidGrad SoftmaxCrossEntropyWithLogits SoftplusGrad
    SparseSoftmaxCrossEntropyWithLogits SqrtGrad TanhGrad
"""
_RANDOM = """
    Multinomial RandomStandardNormal RandomUniform RandomUniformInt RngReadAndSkip
    StatelessMultinomial StatelessRandomGetAlg StatelessRandomGetKeyCounter
    StatelessRandomGetKeyCounterAlg StatelessRandomNormal StatelessRandomNormalV2
    StatelessRandomUniform StatelessRandomUniformFullIntV2 StatelessRandomUniformInt
    StatelessRandomUniformIntV2 StatelessRandomUniformV2 StatelessTruncatedNormal
    StatelessTruncatedNormalV2 TruncatedNormal
"""
_FLOW = """
    Assert AssignAddVariableOp AssignSubVariableOp AssignVariableOp Case CheckNumerics
    ControlTrigger DisableCopyOnRead EmptyTensorList Enter Exit If LoopCond Merge NextIteration
    PartitionedCall ReadVariableOp ResourceGather ResourceGatherNd ResourceScatterAdd
    ResourceScatterUpdate StatefulPartitionedCall StatelessCase StatelessIf StatelessWhile Switch
    SymbolicGradient TensorListConcatV2 TensorListElementShape TensorListFromTensor
    TensorListGather TensorListGetItem TensorListLength TensorListPopBack TensorListPushBack
    TensorListReserve TensorListResize TensorListSetItem TensorListStack VarHandleOp
    VarIsInitializedOp VariableShape While
"""
COMPUTE = frozenset(f"{_ELEMENTWISE}{_SHAPES}{_ALGEBRA}{_LAYERS}{_RANDOM}{_FLOW}".split())
#: beside those, in the two functions with which TensorFlow saves and restores variables; these are
#: in every SavedModel and run only for whoever asks for them, which semsim does not
SAVE = frozenset(
    {"MergeV2Checkpoints", "RestoreV2", "SaveV2"}
    | {"ShardedFilename", "StaticRegexFullMatch", "StringJoin"}
)

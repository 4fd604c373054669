"""The tables of parts: kind -> "module:Class". A new part is one file and one row here.

Rows are strings, so that naming a part costs no import; ``semsim.spec`` resolves them when they are
first used. Parts from outside need no row: ``kind: my_lab.channels:Blockage``. Channels
and knowledge of them have their rows in ``channels.tables``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from channels.tables import CHANNELS, CSI_SOURCES

FRONTENDS = {
    "none": "semsim.phy.frontend:NoFrontEnd",
    "zf": "semsim.phy.frontend:ZF",
    "lmmse": "semsim.phy.frontend:LMMSE",
    "irc": "semsim.phy.frontend:IRC",
    "svd": "semsim.phy.frontend:SVD",
    "rzf": "semsim.phy.frontend:RZF",
}

LEARNED_CSI = {
    "learned": "semsim.csi.learned:LearnedCSI",
    "predicted": "semsim.csi.predicted:PredictedCSI",
}

LINKS = {
    "direct": "semsim.link:Link",
    "frames": "semsim.links.frames:FramesLink",
    "relay": "semsim.links.relay:RelayLink",
    "feedback": "semsim.links.feedback:FeedbackLink",
    "multiple_access": "semsim.links.multiple_access:MultipleAccessLink",
}

TRANSMITTERS = {
    "analog": "semsim.codecs.analog:AnalogTransmitter",
    "coded": "semsim.codecs.coded:CodedTransmitter",
    "deepjscc": "semsim.codecs.deepjscc:DeepJSCCTransmitter",
    "flsc": "semsim.codecs.flsc.codec:FLSCTransmitter",
    "hybrid": "semsim.codecs.hybrid:HybridTransmitter",
    "keras": "semsim.codecs.keras.codec:KerasTransmitter",
    "lcfsc": "semsim.codecs.lcfsc.codec:LCFSCTransmitter",
    "no_link": "semsim.codecs.no_link:NoLinkTransmitter",
    "observed": "semsim.codecs.observed:ObservedTransmitter",
    "softcast": "semsim.codecs.softcast:SoftCastTransmitter",
    "swin_jscc": "semsim.codecs.swin_jscc:SwinTransmitter",
    "uncoded": "semsim.codecs.uncoded:UncodedTransmitter",
    "values": "semsim.codecs.values:ValuesTransmitter",
    "separate": "semsim.codecs.separate:SeparateTransmitter",
    "bound": "semsim.codecs.bound:BoundTransmitter",
}

RECEIVERS = {
    "analog": "semsim.codecs.analog:AnalogReceiver",
    "coded": "semsim.codecs.coded:CodedReceiver",
    "deepjscc": "semsim.codecs.deepjscc:DeepJSCCReceiver",
    "flsc": "semsim.codecs.flsc.codec:FLSCReceiver",
    "keras": "semsim.codecs.keras.codec:KerasReceiver",
    "lcfsc": "semsim.codecs.lcfsc.codec:LCFSCReceiver",
    "softcast": "semsim.codecs.softcast:SoftCastReceiver",
    "swin_jscc": "semsim.codecs.swin_jscc:SwinReceiver",
    "uncoded": "semsim.codecs.uncoded:UncodedReceiver",
    "values": "semsim.codecs.values:ValuesReceiver",
    "latent_denoiser": "semsim.codecs.latent_denoiser:LatentDenoiser",
}

PAYLOADS = {
    "photos": "semsim.payloads.photos:Photos",
    "folder": "semsim.payloads.folder:Folder",
    "cifar10": "semsim.payloads.cifar:CIFAR10",
    "arrays": "semsim.payloads.arrays:Arrays",
    "pool": "semsim.payloads.pool:Pool",
    "mix": "semsim.payloads.mix:Mix",
    "bits": "semsim.payloads.bits:Bits",
    "channel_history": "semsim.payloads.channel_history:ChannelHistory",
    "channels": "semsim.payloads.channels:Channels",
    "channel_activity": "semsim.payloads.channel_activity:ChannelActivity",
    "channel_mix": "semsim.payloads.channels:ChannelMix",
    "channel_files": "semsim.payloads.channel_files:ChannelFiles",
    "measured": "semsim.payloads.measured:MeasuredChannels",
    "pilot_estimates": "semsim.payloads.pilot_estimates:PilotEstimates",
    "synthetic": "semsim.payloads.synthetic:Synthetic",
}

TASKS = {
    "reconstruct": "semsim.tasks.reconstruct:Reconstruct",
    "classify": "semsim.tasks.classify:Classify",
    "recognise": "semsim.tasks.meaning:Recognise",
    "retrieve": "semsim.tasks.meaning:Retrieve",
    "fill_in": "semsim.csi.pretrain:FillIn",
    "predict_channel": "semsim.csi.recurrent:PredictChannel",
    "estimate_channel": "semsim.csi.tasks:EstimateChannel",
    "classify_channel": "semsim.csi.tasks:ClassifyChannel",
}

METRICS = {
    "psnr": "semsim.metrics.image:PSNR",
    "psnr_of_mse": "semsim.metrics.image:PSNROfMSE",
    "ssim": "semsim.metrics.image:SSIM",
    "ms_ssim": "semsim.metrics.image:MSSSIM",
    "ms_ssim_db": "semsim.metrics.image:MSSSIMdB",
    "niqe": "semsim.metrics.image:NIQE",
    "ber": "semsim.metrics.signal:BER",
    "bler": "semsim.metrics.signal:BLER",
    "outage": "semsim.metrics.signal:Outage",
    "throughput": "semsim.metrics.signal:Throughput",
    "evm": "semsim.metrics.signal:EVM",
    "papr": "semsim.metrics.signal:PAPR",
    "nmse": "semsim.metrics.error:NMSE",
    "channel_nmse": "semsim.metrics.error:ChannelNMSE",
    "angle_delay_nmse": "semsim.metrics.error:AngleDelayNMSE",
    "rate_loss": "semsim.metrics.error:RateLoss",
    "accuracy": "semsim.metrics.decision:Accuracy",
    "sensitivity": "semsim.metrics.scores:Sensitivity",
    "specificity": "semsim.metrics.scores:Specificity",
    "balanced_accuracy": "semsim.metrics.scores:BalancedAccuracy",
    "average_precision": "semsim.metrics.scores:AveragePrecision",
    "top3": "semsim.metrics.decision:Top3",
    "task_psnr": "semsim.metrics.image:TaskPSNR",
    "task_ssim": "semsim.metrics.image:TaskSSIM",
}


class Paper(NamedTuple):
    """A vision paper: one package that holds a payload, a task, and metrics of its own.

    Payload and task go by the paper's kind; metrics have kinds of their own.
    """

    module: str
    payload: str
    task: str
    metrics: Mapping[str, str] = {}


VISION = {
    "lowlight": Paper(
        "semsim.vision.nlhd",
        "LowLight",
        "Enhance",
        {
            "matched_psnr": "MatchedPSNR",
            "flat_noise": "FlatNoise",
            "lightness_order": "LightnessOrder",
        },
    ),
    "mar": Paper("semsim.vision.marformer", "MetalSlices", "ReduceMetal"),
    "dbdh": Paper(
        "semsim.vision.dbdh",
        "MarkedPhotos",
        "Localise",
        {
            "iou": "QuadIoU",
            "localised": "Localised",
            "vertex_error": "VertexError",
            "bit_accuracy": "BitAccuracy",
            "bit_accuracy_oracle": "BitAccuracyOracle",
            "message_success": "MessageSuccess",
        },
    ),
    "sites": Paper(
        "semsim.vision.sscl",
        "Sites",
        "FindSites",
        {
            "sensitivity_at": "SensitivityAt",
            "sensitivity_recalibrated": "SensitivityRecalibrated",
        },
    ),
    "faces": Paper(
        "semsim.vision.faces",
        "Faces",
        "Verify",
        {
            "tar": "TAR",
            "tar_strict": "TARStrict",
            "tar_recalibrated": "TARRecalibrated",
            "false_acceptance": "FalseAcceptance",
            "false_rejection": "FalseRejection",
            "face_psnr": "FacePSNR",
            "face_ssim": "FaceSSIM",
        },
    ),
    "restore": Paper("semsim.vision.restore", "DegradedFaces", "Restore"),
}

if (Path(__file__).parent / "vision").is_dir():  # the folder may be deleted
    for _kind, _paper in VISION.items():
        PAYLOADS[_kind] = f"{_paper.module}:{_paper.payload}"
        TASKS[_kind] = f"{_paper.module}:{_paper.task}"
        METRICS |= {kind: f"{_paper.module}:{name}" for kind, name in _paper.metrics.items()}

FAMILIES: dict[str, dict[str, str]] = {
    "payload": PAYLOADS,
    "transmitter": TRANSMITTERS,
    "receiver": RECEIVERS,
    "channel": CHANNELS,
    "csi": CSI_SOURCES | LEARNED_CSI,
    "frontend": FRONTENDS,
    "link": LINKS,
    "task": TASKS,
    "metric": METRICS,
}

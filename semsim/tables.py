"""The tables of parts: kind -> "module:Class". A new part is one file and one row here.

Rows are strings, so that naming a part costs no import; ``semsim.spec`` resolves them when they are
first used. Parts from outside need no row: ``kind: my_lab.channels:Blockage``.
"""

from __future__ import annotations

CHANNELS = {
    "awgn": "channels.awgn:AWGN",
    "rayleigh": "channels.fading:Rayleigh",
    "rician": "channels.fading:Rician",
    "tdl": "channels.ofdm:TDL",
    "cdl": "channels.ofdm:CDL",
    "umi": "channels.ofdm:UMi",
    "uma": "channels.ofdm:UMa",
    "erasure": "channels.erasure:Erasure",
    "interference": "channels.interference:Interference",
    "carrier_offset": "channels.impairments:CarrierOffset",
    "phase_noise": "channels.impairments:PhaseNoise",
    "clipping": "channels.impairments:Clipping",
    "cascade": "channels.cascade:Cascade",
    "measured": "channels.dataset:Measured",
}

CSI_SOURCES = {
    "perfect": "channels.csi:PerfectCSI",
    "pilots": "channels.csi:PilotCSI",
    "feedback": "channels.csi:FeedbackCSI",
    "mismatched": "channels.csi:MismatchedCSI",
    "none": "channels.csi:NoCSI",
}

FRONTENDS = {
    "none": "semsim.phy.frontend:NoFrontEnd",
    "zf": "semsim.phy.frontend:ZF",
    "lmmse": "semsim.phy.frontend:LMMSE",
    "svd": "semsim.phy.frontend:SVD",
    "rzf": "semsim.phy.frontend:RZF",
}

TRANSMITTERS = {
    "analog": "semsim.codecs.analog:AnalogTransmitter",
    "deepjscc": "semsim.codecs.deepjscc:DeepJSCCTransmitter",
    "lcfsc": "semsim.codecs.lcfsc.codec:LCFSCTransmitter",
    "swin_jscc": "semsim.codecs.swin_jscc:SwinTransmitter",
    "uncoded": "semsim.codecs.uncoded:UncodedTransmitter",
    "separate": "semsim.codecs.separate:SeparateTransmitter",
    "bound": "semsim.codecs.bound:BoundTransmitter",
}

RECEIVERS = {
    "analog": "semsim.codecs.analog:AnalogReceiver",
    "deepjscc": "semsim.codecs.deepjscc:DeepJSCCReceiver",
    "lcfsc": "semsim.codecs.lcfsc.codec:LCFSCReceiver",
    "swin_jscc": "semsim.codecs.swin_jscc:SwinReceiver",
    "uncoded": "semsim.codecs.uncoded:UncodedReceiver",
    "separate": "semsim.codecs.separate:SeparateReceiver",
    "bound": "semsim.codecs.bound:BoundReceiver",
    "latent_denoiser": "semsim.codecs.latent_denoiser:LatentDenoiser",
}

PAYLOADS = {
    "photos": "semsim.payloads.photos:Photos",
    "folder": "semsim.payloads.folder:Folder",
    "cifar10": "semsim.payloads.cifar:CIFAR10",
    "arrays": "semsim.payloads.arrays:Arrays",
    "bits": "semsim.payloads.bits:Bits",
    "synthetic": "semsim.payloads.synthetic:Synthetic",
}

TASKS = {
    "reconstruct": "semsim.tasks.reconstruct:Reconstruct",
    "classify": "semsim.tasks.classify:Classify",
}

METRICS = {
    "psnr": "semsim.metrics.image:PSNR",
    "psnr_of_mse": "semsim.metrics.image:PSNROfMSE",
    "ssim": "semsim.metrics.image:SSIM",
    "ms_ssim": "semsim.metrics.image:MSSSIM",
    "ms_ssim_db": "semsim.metrics.image:MSSSIMdB",
    "ber": "semsim.metrics.signal:BER",
    "bler": "semsim.metrics.signal:BLER",
    "evm": "semsim.metrics.signal:EVM",
    "papr": "semsim.metrics.signal:PAPR",
    "accuracy": "semsim.metrics.decision:Accuracy",
}

FAMILIES: dict[str, dict[str, str]] = {
    "payload": PAYLOADS,
    "transmitter": TRANSMITTERS,
    "receiver": RECEIVERS,
    "channel": CHANNELS,
    "csi": CSI_SOURCES,
    "frontend": FRONTENDS,
    "task": TASKS,
    "metric": METRICS,
}

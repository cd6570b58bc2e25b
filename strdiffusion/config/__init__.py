"""The options of trainings (training.py; prior.py and dgts.py: of those networks) and of model folders (model.py), with types, ranges and
defaults; common.py: shared options.

The options of samplers, methods and tests are next to their code: `samplers/`, `methods/`, `evaluation/options.py`.
"""

from strdiffusion.config.dgts import TrainDGTSConfig, TrainUpsamplerConfig
from strdiffusion.config.prior import TrainPriorConfig
from strdiffusion.config.training import (
    TrainConfig,
    TrainDiscriminatorConfig,
    TrainJudgeConfig,
    TrainSDEConfig,
    TrainStructureConfig,
    TrainTextureConfig,
)
from strdiffusion.system.parser import load_config, save_config, to_dict

__all__ = [
    "TrainConfig",
    "TrainDGTSConfig",
    "TrainDiscriminatorConfig",
    "TrainJudgeConfig",
    "TrainPriorConfig",
    "TrainSDEConfig",
    "TrainStructureConfig",
    "TrainTextureConfig",
    "TrainUpsamplerConfig",
    "load_config",
    "save_config",
    "to_dict",
]

"""The papers of each recipe, and a published accuracy to compare one's own runs with."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PAPERS", "PUBLISHED", "Published"]


@dataclass(frozen=True)
class Published:
    """A published accuracy in percent of the balanced test part, with the protocol it belongs to.

    data, imbalance: the training split; where: who printed it; protocol: epochs and augmentation.
    Only numbers are here that their authors, or authors of a common code base, print themselves.
    """

    data: str
    imbalance: int
    accuracy: float
    where: str
    protocol: str = "200 epochs, crop and flip"

    def __str__(self) -> str:
        return (
            f"{self.accuracy} % on {self.data} at imbalance {self.imbalance} "
            f"({self.where}; {self.protocol})"
        )


_LDAM = (
    "Cao, Wei, Gaidon, Arechiga, Ma: Learning Imbalanced Datasets with Label-Distribution-Aware "
    "Margin Loss. NeurIPS 2019, arXiv 1906.07413"
)
_DECOUPLED = (
    "Kang, Xie, Rohrbach, Yan, Gordo, Feng, Kalantidis: Decoupling Representation and Classifier "
    "for Long-Tailed Recognition. ICLR 2020, arXiv 1910.09217"
)
_EFFECTIVE = (
    "Cui, Jia, Lin, Song, Belongie: Class-Balanced Loss Based on Effective Number of Samples. "
    "CVPR 2019, arXiv 1901.05555"
)
_BALANCED = (
    "Ren, Yu, Sheng, Ma, Zhao, Yi, Li: Balanced Meta-Softmax for Long-Tailed Visual Recognition. "
    "NeurIPS 2020, arXiv 2007.10740"
)
_ADJUSTED = (
    "Menon, Jayasumana, Rawat, Jain, Veit, Kumar: Long-Tail Learning via Logit Adjustment. ICLR "
    "2021, arXiv 2007.07314"
)
_SMOOTHED = (
    "Zhong, Cui, Liu, Jia: Improving Calibration for Long-Tailed Recognition. CVPR 2021, arXiv "
    "2104.00466"
)
_CLOUDED = (
    "Li, Cheung, Lu: Long-Tailed Visual Recognition via Gaussian Clouded Logit Adjustment. CVPR "
    "2022, arXiv 2305.11733"
)
_MEMORY = "Sonseca 2021: github.com/Sonseca97/fyp-long-tail-recognition, a thesis's code"
_BALANCED_CONTRAST = (
    "Zhu, Wang, Chen, Chen, Jiang: Balanced Contrastive Learning for Long-Tailed Visual "
    "Recognition. CVPR 2022, arXiv 2207.09052"
)
_EXPECTED_CONTRAST = (
    "Du, Wang, Song, Huang: Probabilistic Contrastive Learning for Long-Tailed Visual Recognition. "
    "IEEE Transactions on PAMI 46(9), 2024, arXiv 2403.06726"
)
_MIXTURES = (
    "Du, Yang, Jia, Nan, Chen, Yang: Global and Local Mixture Consistency Cumulative Learning for "
    "Long-Tailed Visual Recognitions. CVPR 2023, arXiv 2305.08661"
)
_PARAMETRIC = (
    "Cui, Zhong, Liu, Yu, Jia: Parametric Contrastive Learning. ICCV 2021, arXiv 2107.12028"
)

PAPERS: dict[str, tuple[str, ...]] = {
    "ce": (),
    "balanced-softmax": (_BALANCED,),
    "crt": (_DECOUPLED,),
    "kd": (
        "Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network. arXiv 1503.02531",
    ),
    "one-hot": (
        (
            "Touvron, Cord, Douze, Massa, Sablayrolles, Jegou: Training Data-Efficient Image "
            "Transformers and Distillation through Attention. ICML 2021, arXiv 2012.12877"
        ),
    ),
    "patched-one-hot": ("a thesis of Nanyang Technological University, 2022, handle 10356/155131",),
    "ldam-drw": (_LDAM,),
    "tau-norm": (_DECOUPLED,),
    "h2t": (
        (
            "Li, Hu, Lu, Lan, Cheung, Huang: Feature Fusion from Head to Tail for Long-Tailed "
            "Visual Recognition. AAAI 2024, arXiv 2306.06963"
        ),
    ),
    "cbd": (
        (
            "Iscen, Araujo, Gong, Schmid: Class-Balanced Distillation for Long-Tailed Visual "
            "Recognition. BMVC 2021, arXiv 2104.05279"
        ),
    ),
    "memory-kt": (_MEMORY,),
    "memory-llw": (_MEMORY,),
    "memory-asm": (_MEMORY,),
    "memory-sum-logits": (_MEMORY,),
    "memory-sum-probabilities": (_MEMORY,),
    "memory-max": (_MEMORY,),
    "memory-weighted-logits": (_MEMORY,),
    "memory-weighted-probabilities": (_MEMORY,),
    "memory-scaled-logits": (_MEMORY,),
    "memory-attention": (_MEMORY,),
    "focal": (
        (
            "Lin, Goyal, Girshick, He, Dollar: Focal Loss for Dense Object Detection. ICCV 2017, "
            "arXiv 1708.02002"
        ),
    ),
    "cb-ce": (_EFFECTIVE,),
    "cb-focal": (_EFFECTIVE,),
    "ce-drw": (_LDAM, _EFFECTIVE),
    "ldam": (_LDAM,),
    "balanced-sigmoid": (
        (
            "Ren, Yu, Cai, Zhao: Balanced Activation for Long-Tailed Visual Recognition. LVIS "
            "Challenge 2020, arXiv 2008.11037"
        ),
    ),
    "logit-adjust": (_ADJUSTED,),
    "logit-adjust-posthoc": (_ADJUSTED,),
    "label-aware-smoothing": (_SMOOTHED,),
    "vs-loss": (
        (
            "Kini, Paraskevas, Oymak, Thrampoulidis: Label-Imbalanced and Group-Sensitive "
            "Classification under Overparameterization. NeurIPS 2021, arXiv 2103.01550"
        ),
    ),
    "ncm": (_DECOUPLED,),
    "temperature": (
        (
            "Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks. ICML 2017, "
            "arXiv 1706.04599"
        ),
    ),
    "class-balanced": (_DECOUPLED,),
    "square-root": (_DECOUPLED,),
    "progressive": (_DECOUPLED,),
    "effective-number": (_EFFECTIVE, _CLOUDED),
    "lws": (_DECOUPLED,),
    "mislas": (_SMOOTHED,),
    "balms": (_BALANCED,),
    "gcl": (_CLOUDED,),
    "manifold-mixup": (
        (
            "Verma, Lamb, Beckham, Najafi, Mitliagkas, Lopez-Paz, Bengio: Manifold Mixup: Better "
            "Representations by Interpolating Hidden States. ICML 2019, arXiv 1806.05236"
        ),
    ),
    "gcl-angular": (
        (
            "Li, Cheung, Lu, Hu, Lan, Huang: Adjusting Logit in Gaussian Form for Long-Tailed "
            "Visual Recognition. IEEE Transactions on AI 5(10), 2024, arXiv 2305.10648"
        ),
    ),
    "balpoe": (
        (
            "Sanchez Aimar, Jonnarth, Felsberg, Kuhlmann: Balanced Product of Calibrated Experts "
            "for Long-Tailed Recognition. CVPR 2023, arXiv 2206.05260"
        ),
    ),
    "breadcrumbs": (
        (
            "Liu, Li, Kang, Hua, Vasconcelos: Breadcrumbs: Adversarial Class-Balanced Sampling for "
            "Long-Tailed Recognition. ECCV 2022, arXiv 2105.00127"
        ),
    ),
    "bcl": (_BALANCED_CONTRAST,),
    "proco": (_EXPECTED_CONTRAST,),
    "glmc": (_MIXTURES,),
    "paco": (_PARAMETRIC,),
}
"""The papers of each recipe; README.md in this folder says where we depart from them."""

_TRICKS = "Zhang et al. 2021, Bag of Tricks, one code for all its rows"
_LONG = "about 1,240 epochs, Nesterov"


def _tricks(accuracy: float) -> Published:
    return Published("cifar10_lt", 100, accuracy, _TRICKS)


PUBLISHED: dict[str, Published] = {
    "ce": Published("cifar10_lt", 100, 71.36, "Menon et al. 2021, logs of its code", _LONG),
    "balanced-softmax": _tricks(77.54),
    "crt": _tricks(74.99),
    "ldam-drw": _tricks(77.73),
    "tau-norm": _tricks(72.70),
    "h2t": Published(
        "cifar100_lt", 100, 47.73, "Li et al. 2024, slides", "210 epochs, crop, flip and mixup"
    ),
    "focal": _tricks(71.56),
    "ce-drw": _tricks(74.82),
    "ldam": _tricks(73.66),
    "logit-adjust": Published(
        "cifar10_lt", 100, 77.89, "Menon et al. 2021, logs of its code", _LONG
    ),
    "logit-adjust-posthoc": Published(
        "cifar10_lt", 100, 77.32, "Menon et al. 2021, logs of its code", _LONG
    ),
    "class-balanced": _tricks(72.45),
    "square-root": _tricks(71.42),
    "progressive": _tricks(71.98),
    "lws": _tricks(72.63),
    "manifold-mixup": Published(
        "cifar10_lt", 100, 75.19, _TRICKS, "200 epochs, crop and flip; last features alone mixed"
    ),
    "mislas": Published(
        "cifar10_lt",
        100,
        82.5,
        "Zhong et al. 2021, README of its code",
        "210 epochs, crop, flip and mixup",
    ),
    "gcl": Published(
        "cifar100_lt",
        100,
        48.61,
        "Li et al. 2024 (H2T), slides of the same authors",
        "230 epochs of batch 64, crop, flip and mixup",
    ),
    "balms": Published(
        "cifar10_lt",
        200,
        82.2,
        "Ren et al. 2020, README of its code",
        "537 epochs of batch 512, AutoAugment and Cutout",
    ),
    "balpoe": Published(
        "cifar100_lt",
        100,
        54.7,
        "Sanchez Aimar et al. 2023, README of its code",
        "200 epochs, stronger augmentation and mixup",
    ),
    "proco": Published(
        "cifar10_lt",
        100,
        85.9,
        "Du et al. 2024, README of its code",
        "200 epochs of batch 256, AutoAugment, Cutout and SimCLR views",
    ),
    "glmc": Published(
        "cifar10_lt",
        100,
        88.5,
        "Du et al. 2023, README of its code",
        "200 epochs of batch 64, a network of four times the channels",
    ),
}
"""One published accuracy of a recipe, where its authors or a common code base print it.

They are of ResNet-32 and of the best epoch on the test part in most codes; ours is the last epoch.
"""

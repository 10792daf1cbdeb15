"""Which attacks benchmarks/attacks.py sets beside each other, at settings that all contestants have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from peers import Contestant, adv_lib, art, art_patch, cleverhans_spsa, foolbox, official_autoattack, ours, torchattacks


@dataclass(frozen=True)
class Match:
    """Contestants of one kind on one model; ours is the first."""

    title: str
    model: str
    norm: str
    eps: float
    contestants: dict[str, Contestant]
    samples: int = 200
    minimum_norm: bool = False


SMALL, LARGE = 2 / 255, 8 / 255
STEP = SMALL / 4
AUTOATTACK = {"robustbench-lab": ours("autoattack"), "official": official_autoattack(), "swift": ours("swift")}
SWIFT = {"swift": ours("swift"), "official AutoAttack": official_autoattack()}


def single(title: str, norm: str, eps: float, own: str, peers: dict[str, Contestant], **more: Any) -> Match:
    """One attack of ours, as `rbl run --attack` takes it, beside its namesakes, on resnet_2b."""
    return Match(title, "resnet_2b", norm, eps, {"robustbench-lab": ours(own), **peers}, **more)


def nearest(title: str, norm: str, eps: float, own: str, peers: dict[str, Contestant], samples: int = 200) -> Match:
    """The same of a minimum-norm attack: the budget is that of the robust accuracy alone."""
    return single(title, norm, eps, own, peers, samples=samples, minimum_norm=True)


MATCHES = [
    Match("autoattack", "resnet_2b", "linf", SMALL, AUTOATTACK, 1000),
    Match("autoattack", "wide_kw", "linf", LARGE, AUTOATTACK, 1000),
    Match("autoattack", "resnet_2b", "l2", 0.5, AUTOATTACK, 300),
    Match("autoattack", "resnet_2b", "l1", 12.0, AUTOATTACK, 300),
    Match("swift", "resnet_2b", "l1", 3.0, SWIFT, 300),
    Match("swift", "base_kw", "linf", SMALL, SWIFT, 300),
    Match("swift", "resnet18-at", "linf", LARGE, SWIFT, 200),
    Match("swift", "resnet18-plain", "linf", 1 / 255, SWIFT, 200),
    Match("swift", "mnist_fc", "linf", 0.03, SWIFT, 300),
    Match("swift", "digits-cnn-at", "linf", 0.15, SWIFT, 450),
    Match("swift", "digits-cnn", "linf", 0.1, SWIFT, 450),
    single(
        "fgsm",
        "linf",
        SMALL,
        "fgsm",
        {
            "torchattacks": torchattacks("FGSM"),
            "foolbox": foolbox("LinfFastGradientAttack"),
            "ART": art("FastGradientMethod"),
        },
        samples=1000,
    ),
    single(
        "pgd, 40 steps",
        "linf",
        SMALL,
        f"pgd(steps=40, step_size={STEP})",
        {
            "torchattacks": torchattacks("PGD", alpha=STEP, steps=40),
            "foolbox": foolbox("LinfPGD", steps=40, abs_stepsize=STEP),
            "ART": art("ProjectedGradientDescent", eps_step=STEP, max_iter=40, num_random_init=1),
        },
    ),
    single(
        "pgd in l2, 40 steps",
        "l2",
        0.25,
        "pgd(steps=40, step_size=0.05)",
        {
            "torchattacks": torchattacks("PGDL2", alpha=0.05, steps=40),
            "foolbox": foolbox("L2PGD", steps=40, abs_stepsize=0.05),
            "ART": art("ProjectedGradientDescent", norm=2, eps_step=0.05, max_iter=40, num_random_init=1),
        },
    ),
    single(
        "pgd in l1, 40 steps",
        "l1",
        6.0,
        "pgd(steps=40)",
        {
            "foolbox": foolbox("SparseL1DescentAttack", steps=40),
            "ART": art("ProjectedGradientDescent", norm=1, eps_step=0.6, max_iter=40, num_random_init=1),
        },
    ),
    single(
        "mim, 20 steps",
        "linf",
        SMALL,
        f"mim(steps=20, step_size={STEP})",
        {
            "torchattacks": torchattacks("MIFGSM", alpha=STEP, steps=20),
            "ART": art("MomentumIterativeMethod", eps_step=STEP, max_iter=20),
        },
    ),
    single(
        "nifgsm, 20 steps",
        "linf",
        SMALL,
        f"nifgsm(steps=20, step_size={STEP})",
        {"torchattacks": torchattacks("NIFGSM", alpha=STEP, steps=20)},
    ),
    single(
        "difgsm, 20 steps",
        "linf",
        SMALL,
        f"difgsm(steps=20, step_size={STEP})",
        {"torchattacks": torchattacks("DIFGSM", alpha=STEP, steps=20)},
    ),
    single(
        "vmifgsm, 20 steps, 5 neighbours",
        "linf",
        SMALL,
        f"vmifgsm(steps=20, step_size={STEP}, neighbours=5)",
        {"torchattacks": torchattacks("VMIFGSM", alpha=STEP, steps=20, N=5)},
    ),
    single(
        "apgd, cross-entropy, 100 steps",
        "linf",
        SMALL,
        "apgd(steps=100)",
        {
            "torchattacks": torchattacks("APGD", norm="Linf", steps=100, n_restarts=1),
            "ART": art("AutoProjectedGradientDescent", eps_step=2 * SMALL, max_iter=100, nb_random_init=1),
            "adv-lib": adv_lib("apgd", norm=True, budget=True, loss_function="ce"),
        },
    ),
    single(
        "apgd, dlr, 100 steps",
        "linf",
        SMALL,
        "apgd(steps=100, loss='dlr')",
        {
            "torchattacks": torchattacks("APGD", norm="Linf", steps=100, n_restarts=1, loss="dlr"),
            "adv-lib": adv_lib("apgd", norm=True, budget=True),
        },
    ),
    single(
        "apgd, targeted dlr, 9 targets of 100 steps",
        "linf",
        SMALL,
        "apgd(steps=100, loss='targeted-dlr')",
        {
            "torchattacks": torchattacks("APGDT", norm="Linf", steps=100, n_restarts=1),
            "adv-lib": adv_lib("apgd_targeted", norm=True, budget=True),
        },
    ),
    single(
        "square, 500 queries",
        "linf",
        SMALL,
        "square(queries=500)",
        {
            "torchattacks": torchattacks("Square", norm="Linf", n_queries=500),
            "ART": art("SquareAttack", max_iter=500),
        },
    ),
    single(
        "square in l2, 500 queries",
        "l2",
        0.5,
        "square(queries=500)",
        {
            "torchattacks": torchattacks("Square", norm="L2", n_queries=500),
            "ART": art("SquareAttack", norm=2, max_iter=500),
        },
    ),
    # torchattacks' FAB hands back what lies within the budget only, so no distances are compared.
    single(
        "fab, 100 steps",
        "linf",
        SMALL,
        "fab(steps=100)",
        {"torchattacks": torchattacks("FAB", norm="Linf", steps=100)},
    ),
    single(
        "fab-t, 9 targets of 20 steps",
        "linf",
        SMALL,
        "fab-t(steps=20)",
        {"torchattacks": torchattacks("FAB", norm="Linf", steps=20, multi_targeted=True)},
    ),
    nearest(
        "fmn, 100 steps",
        "linf",
        SMALL,
        "fmn(steps=100)",
        {
            "foolbox": foolbox("LInfFMNAttack", minimum_norm=True, steps=100),
            "adv-lib": adv_lib("fmn", norm=True, steps=100),
        },
    ),
    nearest(
        "fmn in l2, 100 steps",
        "l2",
        0.5,
        "fmn(steps=100)",
        {
            "foolbox": foolbox("L2FMNAttack", minimum_norm=True, steps=100),
            "adv-lib": adv_lib("fmn", norm=True, steps=100),
        },
    ),
    nearest(
        "fmn in l1, 100 steps",
        "l1",
        6,
        "fmn(steps=100)",
        {
            "foolbox": foolbox("L1FMNAttack", minimum_norm=True, steps=100),
            "adv-lib": adv_lib("fmn", norm=True, steps=100),
        },
    ),
    nearest(
        "fmn in l0, 100 steps",
        "l0",
        24,
        "fmn(steps=100)",
        {
            "foolbox": foolbox("L0FMNAttack", minimum_norm=True, steps=100),
            "adv-lib": adv_lib("fmn", norm=True, steps=100),
        },
    ),
    nearest(
        "ddn, 100 steps",
        "l2",
        0.5,
        "ddn(steps=100)",
        {
            "foolbox": foolbox("DDNAttack", minimum_norm=True, steps=100),
            "adv-lib": adv_lib("ddn", steps=100, levels=None),
        },
    ),
    nearest(
        "deepfool, 50 steps",
        "l2",
        0.5,
        "deepfool",
        {
            "torchattacks": torchattacks("DeepFool", steps=50),
            "foolbox": foolbox("L2DeepFoolAttack", minimum_norm=True, steps=50),
            "ART": art("DeepFool", budget=False, max_iter=50, epsilon=0.02),
            "adv-lib": adv_lib("df", norm=True, steps=50),
        },
    ),
    nearest(
        "deepfool in linf, 50 steps",
        "linf",
        SMALL,
        "deepfool",
        {
            "foolbox": foolbox("LinfDeepFoolAttack", minimum_norm=True, steps=50),
            "adv-lib": adv_lib("df", norm=True, steps=50),
        },
    ),
    nearest(
        "cw, 5 searches of 200 steps",
        "l2",
        0.5,
        "cw(steps=200, binary_search_steps=5)",
        {
            "foolbox": foolbox("L2CarliniWagnerAttack", minimum_norm=True, steps=200, binary_search_steps=5),
            "ART": art("CarliniL2Method", budget=False, max_iter=200, binary_search_steps=5, initial_const=1e-3),
            "adv-lib": adv_lib("carlini_wagner_l2", binary_search_steps=5, max_iterations=200),
        },
        50,
    ),
    nearest(
        "ead, up to 5 searches of 200 steps that may end early",
        "l1",
        12.0,
        "ead(steps=200, searches=5, around=0)",
        {"foolbox": foolbox("EADAttack", minimum_norm=True, steps=200, binary_search_steps=5, decision_rule="L1")},
    ),
    nearest(
        "ead, 5 whole searches of 200 steps",
        "l1",
        12.0,
        "ead(steps=200, searches=5, around=4, abort_early=False)",
        {
            "foolbox": foolbox(
                "EADAttack",
                minimum_norm=True,
                steps=200,
                binary_search_steps=5,
                decision_rule="L1",
                abort_early=False,
            ),
            "ART": art("ElasticNet", budget=False, max_iter=200, binary_search_steps=5, beta=0.01, decision_rule="L1"),
        },
    ),
    nearest(
        "jsma, two values a step",
        "l0",
        24,
        "jsma",
        {"ART": art("SaliencyMapMethod", budget=False, labels=False, theta=1.0)},
        50,
    ),
    nearest(
        "hopskipjump, 3000 queries",
        "l2",
        0.5,
        "hopskipjump(queries=3000)",
        {
            "foolbox": foolbox("HopSkipJumpAttack", minimum_norm=True, steps=12),
            "ART": art("HopSkipJump", budget=False, max_iter=12),
        },
        20,
    ),
    *(
        nearest(
            f"pdpgd in {norm}, 500 steps",
            norm,
            eps,
            "pdpgd",
            {"adv-lib": adv_lib("pdpgd", norm=True, proximal_operator=proximal)},
            100 if norm == "linf" else 200,
        )
        # In l0 adv-lib advises to take the proximal operator of the l2/3 "norm".
        for norm, eps, proximal in (("linf", SMALL, None), ("l2", 0.5, None), ("l1", 6.0, None), ("l0", 24, 23))
    ),
    nearest(
        "sigma-zero, 1000 steps",
        "l0",
        24,
        "sigma-zero",
        {"adv-lib": adv_lib("sigma_zero")},
        100,
    ),
    nearest(
        "sigma-zero, 100 steps", "l0", 24, "sigma-zero(steps=100)", {"adv-lib": adv_lib("sigma_zero", num_steps=100)}
    ),
    nearest("vfga", "l0", 24, "vfga", {"adv-lib": adv_lib("vfga", targeted=False)}, 50),
    single(
        "spsa, 10 steps of 64 pairs",
        "linf",
        SMALL,
        f"spsa(queries=1290, pairs=64, learning_rate={STEP})",
        {"CleverHans": cleverhans_spsa(nb_iter=10, spsa_samples=64, learning_rate=STEP)},
        samples=50,
    ),
    single(
        "simba, 500 queries",
        "l2",
        5.0,
        "simba(queries=500)",
        {"ART": art("SimBA", budget=False, probabilities=True, attack="px", max_iter=250, epsilon=0.2, batch_size=1)},
        samples=50,
    ),
    single(
        "rotation and translation, 775 places",
        "spatial",
        1,
        "spatial",
        {"foolbox": foolbox("SpatialAttack", budget=False, num_rotations=31, max_translation=3.2)},
    ),
    single(
        "universal",
        "linf",
        LARGE,
        "universal",
        {
            "ART": art(
                "UniversalPerturbation",
                labels=False,
                attacker="deepfool",
                attacker_params={"verbose": False},
                norm=float("inf"),
                max_iter=10,
            )
        },
    ),
    single(
        "patch, 500 steps of 128",
        "patch",
        1 / 16,
        "adversarial-patch",
        {"ART": art_patch(max_iter=89, batch_size=128, learning_rate=0.05)},
        samples=1000,
    ),
]

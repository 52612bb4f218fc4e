"""RACTD's numbers: return model, teacher, student without reward (CTD) and with it.

Locomotion: RACTD appendices A and B at size and preset `paper`, the published YAML files and code
for `released`, and for `default` what our measurements defend (docs/presets.md). Mazes: section 4.2
and appendix A.1.
"""

from typing import Any

from ractd_jax.cli.words import Given

UNET = {"kind": "unet", "down_dims": (512, 1024, 2048), "embed_dim": 128}
BINS = 20  # noise levels of policies in preset `default`
# Of the reward, where a task names no other.
WEIGHTS = {"default": 0.5, "paper": 1.0, "released": 1.0}


def get_sections(given: Given) -> dict[str, dict[str, Any]]:
    """Return the sections of the four stages."""
    weights = WEIGHTS | given.numbers.get("reward_weight", {})
    sections = {
        "reward": _return_model(given),
        "teacher": _teacher(given),
        "ctd": _student(given, {"reward_weight": 0.0}),
        "student": _student(given, {"reward_weight": weights[given.preset]}),
    }
    if given.preset == "default":
        _default(sections, given)
    if given.preset == "released":
        _released(sections)
    return sections


def _return_model(given: Given) -> dict[str, Any]:
    optimiser = {"batch_size": 64, "learning_rate": 2e-4, "weight_decay": 1e-3, "warmup": 20}
    fields = dict(given.numbers.get("return_model", {}))
    section = {
        "network": {"dims": (32, 64, 128, 256)},
        "optimiser": optimiser,
        "epochs": 100 if given.task.kind == "planner" else fields.pop("epochs", 50),
    }
    if given.preset != "paper":
        section["network"]["dims"] = (64, 128, 256)
    optimiser |= fields
    if given.task.kind == "planner":
        if given.size == "small":
            optimiser |= {"batch_size": 256, "steps": 20_000}
        if given.size == "demo":
            section["network"]["dims"] = (32, 64)
            optimiser |= {"batch_size": 512, "learning_rate": 1e-3, "steps": 2000}
            optimiser |= {"warmup": 100, "ema": 0.999}
    elif given.size == "small":
        optimiser |= {"batch_size": 256, "steps": 50_000}
    elif given.size == "demo":
        optimiser |= {"batch_size": 256, "learning_rate": 1e-3, "steps": 4000}
        optimiser |= {"warmup": 100, "ema": 0.999}
    return section


def _teacher(given: Given) -> dict[str, Any]:
    section = {
        "network": dict(UNET),
        "optimiser": {"batch_size": 1024, "warmup": 2000},
        "epochs": 1000,
    }
    if given.task.kind == "planner":
        section["optimiser"] |= {"weight_decay": 1e-4, "warmup": 500}
        section["epochs"] = 400
    size_denoiser(given, section, student=False)
    return section


def _student(given: Given, method: dict[str, Any]) -> dict[str, Any]:
    section = {
        "network": UNET | {"dropout": 0.2},
        "method": method,
        "optimiser": {"batch_size": 4800, "weight_decay": 1e-4, "ema": 0.0, "ema_power": 0.0},
        "epochs": given.numbers.get("epochs", 400),
        "weights": "live",
    }
    if given.task.kind == "planner":
        section["optimiser"] |= {"batch_size": given.numbers["batch_size"], "weight_decay": 1e-6}
    size_denoiser(given, section, student=True)
    return section


def size_denoiser(given: Given, section: dict[str, Any], *, student: bool) -> None:
    """Give a denoiser of trajectories the network and the training of a size.

    Args:
        given: the task and the words of the command line.
        section: of the stage, at paper size; it is changed.
        student: it is distilled; others learn from data alone.
    """
    optimiser = section["optimiser"]
    if given.task.kind == "planner":
        section["network"] |= {"down_dims": given.numbers["down_dims"], "embed_dim": 256}
        if given.size != "paper":
            _size_planner(given, section, student)
    elif given.size == "small":
        section["network"] |= {"down_dims": (64, 128, 256), "embed_dim": 64}
        optimiser |= {"batch_size": 256, "learning_rate": 3e-4}
        optimiser["steps"] = 30_000 if student else 100_000
    elif given.size == "demo":
        section["network"] = MLP | {"hidden": 256, "blocks": 2}
        optimiser |= {"batch_size": 256, "learning_rate": 5e-4, "steps": 6000, "warmup": 200}
        if not student:
            optimiser |= {"steps": 12_000, "learning_rate": 1e-3, "ema": 0.999}


MLP = {"kind": "mlp", "embed_dim": 32, "dropout": 0.0}


def _size_planner(given: Given, section: dict[str, Any], student: bool) -> None:
    """Set networks and lengths that two cores train; U-Nets of long plans take them days."""
    hidden, longer = (1024, 2) if given.size == "small" else (512, 1)
    section["network"] = MLP | {"hidden": hidden, "blocks": 4, "frequencies": 128}
    teacher_steps, student_steps = given.numbers["demo_steps"]
    optimiser = section["optimiser"]
    optimiser |= {"batch_size": 64, "learning_rate": 5e-4, "warmup": 200}
    optimiser["steps"] = longer * student_steps
    if not student:
        optimiser |= {"batch_size": 128, "learning_rate": 1e-3, "ema": 0.999}
        optimiser["steps"] = longer * teacher_steps


# ---- presets -------------------------------------------------------------------------------------


def _default(sections: dict[str, dict[str, Any]], given: Given) -> None:
    """Hold the reward's gradient, and let it choose data: docs/presets.md says why."""
    sections["reward"]["network"]["layer_norm"] = True
    sections["reward"]["method"] = {"members": 6, "drawn": 1}
    for stage in ("ctd", "student"):
        sections[stage]["weights"] = "ema"
        sections[stage]["optimiser"]["ema"] = 0.999
    student = sections["student"]["method"]
    student |= {"distance": "squared", "reward_on": "dsm", "reward_clip": True}
    if given.task.kind == "planner":
        sections["teacher"]["method"] = {"levels": "mixed"}
        student |= {"dsm_goal": "teacher", "reward_scale": "gradient"}
        return
    sections["teacher"]["method"] = {"distance": "squared", "sample_bins": BINS}
    sections["ctd"]["method"] |= {"dsm_stop": "level"}
    student |= {"dsm_stop": "level", "guide": "student", "advantage": 1.0}
    if given.task.name != "custom":  # of twenty demonstrations a tenth is two
        sections["student"]["best_episodes"] = 0.1


def _released(sections: dict[str, dict[str, Any]]) -> None:
    sections["teacher"]["method"] = {"distance": "released"}
    for stage in ("teacher", "reward"):
        sections[stage]["weights"] = "live"
    for stage in ("ctd", "student"):
        # The released target network has decay 0: it is the student after the last update.
        sections[stage]["method"] |= {
            "distance": "released",
            "reward_on": "dsm",
            "target": "ema",
            "target_dropout": True,
        }
    for stage in ("teacher", "ctd", "student"):
        if sections[stage]["network"]["kind"] == "unet":
            sections[stage]["network"]["mid_dropout"] = 0.2

"""The settings of a job become a plan, opened and checked once: run, images, nets, steps, selection."""

from cream.build.checks import check_search
from cream.build.data import image_settings
from cream.build.families import child_net, search_space
from cream.build.recipe import retrain_config_for
from cream.build.retraining import net_to_test, plan_retraining
from cream.build.run import (
    check_results_spare,
    check_trained_classes,
    open_output,
    open_run,
    run_folder,
    running,
    weights_to_test,
    write_config,
)
from cream.build.search import (
    SearchPlan,
    evolution_settings,
    plan_search,
    renamed,
    search_net,
    selection_of,
    settings_of_search,
    supernet_to_evolve,
    trained_search,
)

__all__ = [
    "SearchPlan",
    "check_results_spare",
    "check_search",
    "check_trained_classes",
    "child_net",
    "evolution_settings",
    "image_settings",
    "net_to_test",
    "open_output",
    "open_run",
    "plan_retraining",
    "plan_search",
    "renamed",
    "retrain_config_for",
    "run_folder",
    "running",
    "search_net",
    "search_space",
    "selection_of",
    "settings_of_search",
    "supernet_to_evolve",
    "trained_search",
    "weights_to_test",
    "write_config",
]

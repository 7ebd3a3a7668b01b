"""The operations of a supernet, as a report describes them."""

import numpy as np

from cream.flops import cost_tables
from cream.mobile.nets import MobileSuperNet
from cream.mobile.space import MobileSpace, read_spec
from cream.report.operations import anatomy, read_anatomy, write_anatomy

SPEC = {
    "stem": 8,
    "head": 16,
    "stages": [
        {"channels": 8, "operations": [{"block": "ds", "kernel": 3, "se": 0.25}]},
        {
            "channels": 16,
            "stride": 2,
            "depth": [1, 2],
            "operations": [
                {"block": "ir", "kernel": 5, "expansion": 6},
                {"block": "ir", "kernel": 3, "expansion": 4, "dilation": 2},
                {"block": "ru", "kernel": 3, "reduction": 2},
                {"block": "ru", "kernel": 3, "reduction": 2},
            ],
        },
    ],
}


def test_operations_are_described_from_the_layers(tmp_path):
    net = MobileSuperNet(MobileSpace(read_spec(SPEC)), num_classes=3)
    tables = cost_tables(net, 32)
    before = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    described = anatomy(net, 32, tables)
    (first,), (second, third) = described.stages
    assert (described.stem_channels, described.stem_size) == (8, 16)
    assert [(position.channels, position.size, position.may_skip) for position in (first, second, third)] == [
        (8, 16, False),
        (16, 8, False),
        (16, 8, True),
    ]
    assert [operation.name for operation in first.operations] == ["DS 3x3 SE"]
    assert [operation.name for operation in second.operations] == [
        "MB 5x5 e6",
        "MB 3x3 e4 d2",
        "unit 3x3 (2)",
        "unit 3x3 (3)",
    ]
    assert [(operation.kernel, operation.expansion) for operation in third.operations] == [
        (5, 6),
        (3, 4),
        (3, 0.5),
        (3, 0.5),
    ]
    for table, name in zip(tables, ("mflops", "mparams")):
        costs = [
            [[getattr(operation, name) for operation in position.operations] for position in stage]
            for stage in described.stages
        ]
        assert costs == table.choices
    assert (described.shared_mflops, described.shared_mparams) == (tables[0].fixed, tables[1].fixed)
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])
    assert net.training
    write_anatomy(tmp_path, described)
    assert read_anatomy(tmp_path) == described

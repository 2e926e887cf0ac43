import pytest
import torch

from dppmask.bench.device import capture, count_syncs, measure_machine, rate_columns
from dppmask.bench.run import bench


def test_rates_of_this_processor_are_of_its_order():
    machine = measure_machine(torch.device("cpu"), quick=True)
    assert machine.name
    assert machine.rates.keys() == {torch.float32, torch.float64}
    assert all(1e8 < rate < 1e14 for rate in machine.rates.values())
    assert 1e8 < machine.bandwidth < 1e13
    columns = rate_columns(machine)
    assert columns["matmul_float32_gflops"] == pytest.approx(machine.rates[torch.float32] / 1e9, abs=0.1)


@pytest.mark.gpu
def test_waits_of_the_host_are_counted():
    x = torch.ones(4, device="cuda")
    assert count_syncs(lambda: x + 1) == 0
    assert count_syncs(lambda: (x.sum().item(), x.nonzero())) >= 2
    assert torch.cuda.get_sync_debug_mode() == 0


@pytest.mark.gpu
def test_a_captured_call_does_its_work_again():
    x = torch.zeros(4, device="cuda")
    graph = capture(lambda: x.add_(1))
    assert graph is not None
    before = x.clone()
    graph.replay()
    assert torch.equal(x, before + 1)


@pytest.mark.gpu
def test_the_gpu_rows(tmp_path):
    out = bench(
        quick=True,
        device="cuda",
        backbone=["test_vit"],
        image_size=32,
        patch_size=8,
        batch_size=[2],
        out=str(tmp_path),
    )
    assert "host waits, captured" in out
    assert (tmp_path / "step_cuda.csv").exists()

import pytest

from cornerstone.model.sizing import cvm_vcpus


@pytest.mark.parametrize(("cores", "threads", "vcpus"), [
    (10, 40, 10), (20, 80, 12), (4, 16, 8), (8, 16, 8), (12, 24, 12), (4, 4, 4), (1, 2, 2)])
def test_vcpus_are_the_node_s_cores_within_bounds(cores, threads, vcpus):
    assert cvm_vcpus(cores, threads) == vcpus

"""What the processes of a training exchange, tried on this device; started by torchrun, also as a single process.

    torchrun --standalone --nproc-per-node=1 -m strdiffusion.bench.gpu.collectives cuda

With one process a training exchanges nothing, so here the operations are called themselves. Process 0 prints a line of JSON.
"""

import json
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from strdiffusion.system import distributed
from strdiffusion.system.cli import exit_on_user_error


@exit_on_user_error
def main() -> None:
    with distributed.processes(sys.argv[1] if len(sys.argv) > 1 else "auto") as device:
        total = dist.get_world_size()
        values = torch.arange(4.0, device=device)
        dist.all_reduce(values)  # by NCCL on a GPU
        summed = torch.equal(values.cpu(), total * torch.arange(4.0))
        numbers = torch.tensor([dist.get_rank()])
        dist.all_reduce(numbers, dist.ReduceOp.MAX)  # by gloo, as `distributed.largest`
        sent = ["from process 0" if dist.get_rank() == 0 else None]
        dist.broadcast_object_list(sent, src=0)
        gathered: list = [None] * total
        dist.all_gather_object(gathered, dist.get_rank())

        torch.manual_seed(0)
        network = nn.Conv2d(3, 4, 3).to(device, memory_format=torch.channels_last)
        devices = [device.index] if device.type == "cuda" else None
        shared = DistributedDataParallel(network, device_ids=devices, find_unused_parameters=True)
        images = torch.rand(2, 3, 8, 8, device=device, generator=torch.Generator(device).manual_seed(0))
        with torch.autocast(device.type, torch.bfloat16):
            shared(images).square().mean().backward()
        gradient = network.weight.grad.clone()
        network.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16):
            network(images).square().mean().backward()
        error = ((gradient - network.weight.grad).abs().max() / gradient.abs().max()).item()  # every process sees the same images
        found = {
            "processes": total,
            "backend": str(dist.get_backend_config()),
            "all_reduce": summed,
            "cpu_tensors": numbers.item() == total - 1,
            "objects": sent == ["from process 0"] and gathered == list(range(total)),
            "gradient_error": error,
        }
        if distributed.is_main():
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    sys.exit(main())

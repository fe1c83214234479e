"""``--mode=data_service``: makes training batches for runs in other processes until a signal stops it."""

from __future__ import annotations

from absl import logging

from effnetv2_keras.data.service import Services
from effnetv2_keras.modes.invocation import Invocation
from effnetv2_keras.modes.settings import NOTHING
from effnetv2_keras.training.interruption import stop_on_signal


def run(invocation: Invocation) -> None:
    """Starts the services, prints the ``--hparam_str`` for runs that use them, and waits for a signal."""
    options = invocation.options
    invocation.changes(NOTHING)
    with stop_on_signal() as stop:
        services = Services(options.service_workers, host=options.service_host, port=options.port)
        logging.warning(
            "The services listen on every network interface of this machine, also with --service_host=localhost, "
            "because TensorFlow cannot bind them to one. They run any graph that is sent to them. Let only machines "
            "that you trust reach the ports %s, for example with a firewall.",
            ", ".join(map(str, sorted(services.ports))),
        )
        print(f"--hparam_str=data.service={'|'.join(services.addresses)}", flush=True)
        stop.wait()
        logging.info("%s: stopping the data service.", stop.name)

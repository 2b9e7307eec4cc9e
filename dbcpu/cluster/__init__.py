"""Pages through the machines of a Ray cluster: the second engine of `dbcpu batch`."""

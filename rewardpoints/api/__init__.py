"""The HTTP API: the storefront's, the employees' and the operators' operations over the ports of the domain."""

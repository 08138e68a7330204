"""Methods that judge other methods: is a cheap substitute good enough for the statistic at hand?"""

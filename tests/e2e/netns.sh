# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Sourced after functions.sh: two hosts on one machine, network namespaces joined by a veth pair.
#
#       two_hosts                       A (10.83.0.1) and B (10.83.0.2); each has its own SXM_RUN_DIR
#       on A activate "$uri" 1          any command or function, in that host
#
#       +------- host A -------+                     +------- host B -------+
#       | veth 10.83.0.1       |=====================| veth 10.83.0.2       |
#       | SXM_RUN_DIR=$tmp/A   |                     | SXM_RUN_DIR=$tmp/B   |
#       +----------------------+                     +----------------------+

requires_netns() {
	requires_root
	requires ip -V
	requires unshare --net true
	requires unshare --net ip link add sxm0 type veth peer name sxm1
}

two_hosts() {
	local host

	hosts_dir=$(make_tmp)
	for host in A B; do
		ip netns add "sxm-$$-$host" || skip "no network namespaces here"
		at_exit ip netns del "sxm-$$-$host"
		at_exit end_host "$host"
		mkdir -m 700 "$hosts_dir/$host"
		ip -n "sxm-$$-$host" link set lo up
	done
	ip -n "sxm-$$-A" link add veth type veth peer name veth netns "sxm-$$-B"
	# shellcheck disable=SC2034 # for the tests
	address_A=10.83.0.1 address_B=10.83.0.2
	ip -n "sxm-$$-A" addr add 10.83.0.1/30 dev veth
	ip -n "sxm-$$-B" addr add 10.83.0.2/30 dev veth
	ip -n "sxm-$$-A" link set veth up
	ip -n "sxm-$$-B" link set veth up
}

# verb() runs its file behind $host_prefix; the rest of a function stays in the network where the test runs.
on() {
	local host=$1

	shift
	SXM_RUN_DIR=$hosts_dir/$host host_prefix="nsenter --net=/run/netns/sxm-$$-$host --" "$@"
}

# Whatever still runs in the namespace was started by this test.
end_host() {
	local pid _tries

	for _tries in {1..500}; do
		# shellcheck disable=SC2046 # many words
		set -- "$1" $(ip netns pids "sxm-$$-$1" 2>/dev/null)
		[ $# -gt 1 ] || return 0
		for pid in "${@:2}"; do kill -9 "$pid" 2>/dev/null; done
		sleep 0.05
	done
}

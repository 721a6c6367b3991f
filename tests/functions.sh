# sourced by shell tests

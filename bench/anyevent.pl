#!/usr/bin/env perl
# SPDX-License-Identifier: MIT
# Microseconds that so many processes take which AnyEvent::Fork forks off a template,
# from fork to the end of their sockets, so many at once:
#
#   perl bench/anyevent.pl AT_ONCE N
use strict;
use warnings;
use AnyEvent;
use AnyEvent::Fork;
use Time::HiRes 'time';

my ($at_once, $n) = @ARGV;
my $template = AnyEvent::Fork->new->eval('sub nothing { }');

sub run {
	my ($todo) = @_;
	my $open = $todo;
	my $all = AnyEvent->condvar;
	my $start;
	$start = sub {
		return if $todo-- <= 0;
		$template->fork->run('nothing', sub {
			my ($socket) = @_;
			my $watcher;
			$watcher = AnyEvent->io(fh => $socket, poll => 'r', cb => sub {
				undef $watcher;
				close $socket;
				--$open ? $start->() : $all->send;
			});
		});
	};
	$start->() for 1 .. $at_once;
	$all->recv;
}

run(50);
my $began = time;
run($n);
printf "%.0f\n", (time - $began) * 1e6;

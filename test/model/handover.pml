/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hand-over of a migration: docs/migration-protocol.md, daemon/migrate/states.c.
 *
 * It begins where the source has sent everything and the destination has built everything.  Modelled are the
 * messages from there on, over a connection that can be cut (what is under way may arrive or not, each end
 * notices when it likes); questions and answers, any of which can get lost; the process on each side, which
 * can be killed between any two steps; its successors, which find only the journal, and can be killed, too;
 * a restart of the destination's machine; the sweeping of old journals.  A kill of ferryd itself is a lost
 * answer: it remembers nothing.  The copy at the destination has two processes, so that it can be started,
 * stopped or killed in part.
 *
 * Checked at every step:
 *	- nothing of one copy runs while something of the other does;
 *	- once something of the copy there has run, the copy here never runs again, but after a restart of that
 *	  machine, which has ended it (and, when pages are still here, only if an operator says so);
 *	- the copy here is not ended unless all of the copy there is there, nor (LAZY) while that has not got its
 *	  pages from here;
 *	- nothing that runs there is ever taken to have pages that have not come;
 * and that every run, if killing and cutting end at some time, comes to a state where exactly one copy is
 * left, all of it runs, and no journal waits for a decision.
 *
 * BROKEN takes out one rule. Every such model must fail:
 *	1  a SIGSTOP waits for the copy here before COMMIT leaves
 *	2  a source that gets no RUNNING asks, and keeps its copy until it has the answer
 *	3  the destination decides about nothing while the process of that migration lives
 *	4  `starting` is in the journal before anything is let go
 *	5  all is held before anything is let go, and what is held stops when its tracer dies
 *	6  what a dead process left before `starting` is killed before that is told
 *	7  `committing` is in the journal before COMMIT leaves
 *	8  `unknown` is not `aborted` while the machine is the same one
 *	9  the copy here is ended only when it runs there
 *	10 (LAZY) the copy here is kept until its pages are there
 *	11 (LAZY) what is missing there stays missing when the process that fetches it dies
 *	12 (LAZY) an operator goes back to the copy here only when that machine says that it was restarted
 *
 * LAZY is post-copy: it starts there while pages are still here (docs/post-copy.md).  How many does not matter, so they
 * come at once, or not yet.
 */
#ifndef LAZY
#define LAZY 0
#endif
#ifndef BROKEN
#define BROKEN 0
#endif
#define KILLS    2
#define LOST     2 /* answers */

mtype = { NONE, COMMITTING, ASKING, SERVING, MOVED, STAYED, /* journal of the source */
	  READY, COMMITTED, STARTING, FETCHING, RUNNING, ABORTED, /* of the destination; and answers */
	  FROZEN, STOPPED, RUNS, DEAD };                /* a process of a copy */

mtype out = NONE, in = READY;

mtype here = FROZEN; /* in a ptrace stop, while its tracer lives */
bool stop_waits;     /* a SIGSTOP, behind that stop */
mtype there[2] = FROZEN;
bool held[2];        /* it stops when its tracer dies; else it is killed */
bool has_run;        /* something of the copy there */

bool source_alive = true, source_ended, dest_alive = true, all_ended;
bool kill_source, kill_dest, kill_heir;
byte kills, lost;
bool restarted, swept;
bool told; /* the source has heard that it runs there */

bool serves;      /* somebody here answers those who fetch */
bool all_there = !LAZY;

bool link = true, ready_sent, gave_up, commit_sent, running_sent, done_sent;

#define THERE_RUNS  (there[0] == RUNS || there[1] == RUNS)
#define THERE_WHOLE (there[0] != DEAD && there[1] != DEAD)
#define CHECK                                  \
	assert(!(here == RUNS && THERE_RUNS)); \
	assert(!(here == RUNS && has_run))

inline let_go_here()
{
	atomic {
		if
		:: here != DEAD -> here = RUNS; stop_waits = false
		:: else
		fi;
		CHECK
	}
}

inline end_here()
{
	atomic {
		assert(here == DEAD || (THERE_WHOLE && all_there));
		here = DEAD
	}
}

inline run_there(i)
{
	atomic {
		if
		:: there[i] == FROZEN || there[i] == STOPPED -> there[i] = RUNS; has_run = true
		:: else
		fi;
		CHECK
	}
}

inline kill_there()
{
	there[0] = DEAD;
	there[1] = DEAD
}

inline untraced(i)
{
	if
	:: there[i] == FROZEN && !held[i] -> there[i] = DEAD
	:: there[i] == FROZEN && held[i] && BROKEN != 5 -> there[i] = STOPPED
	:: there[i] == FROZEN && held[i] && BROKEN == 5 -> there[i] = RUNS; has_run = true
	:: else
	fi
}

/* Pages are read from a copy that stands still. */
inline fetch()
{
	atomic {
		assert(here == FROZEN || here == STOPPED);
		all_there = true
	}
}

/* --- the destination ------------------------------------------------------------------------------- */

active proctype destination()
{
	{
		ready_sent = true;
		if
		:: commit_sent -> skip
		:: !link -> goto abort
		:: gave_up -> goto abort
		fi;
		in = COMMITTED;
		held[0] = true;
		held[1] = true;
		if
		:: BROKEN != 4 -> in = STARTING
		:: else
		fi;
		run_there(0);
		run_there(1);
		in = (LAZY -> FETCHING : RUNNING);
		running_sent = true;
		if
		:: LAZY -> serves; fetch(); in = RUNNING
		:: else
		fi;
		if
		:: done_sent -> in = NONE
		:: !link -> skip
		fi;
		goto end;
abort:
		atomic { kill_there() };
		if
		:: gave_up -> in = NONE /* it said so, and will not ask */
		:: true -> in = ABORTED
		fi;
end:
		atomic { dest_alive = false; link = false }
	} unless {
		atomic {
			kill_dest -> kill_dest = false;
			assert(!(BROKEN == 11 && in == FETCHING)); /* missing pages read as zeros */
			untraced(0);
			untraced(1);
			dest_alive = false;
			link = false;
			CHECK
		}
	}
}

/* What ferryd does when it is asked, or finds an entry whose process has died. */
inline decide_there(a)
{
	atomic {
		if
		:: in == NONE && (restarted || BROKEN == 8) -> a = ABORTED /* another life */
		:: in == NONE && !restarted && BROKEN != 8 -> a = NONE
		:: in != NONE && dest_alive ->
			if
			:: in == STARTING || in == RUNNING || in == FETCHING -> a = RUNNING
			:: in == ABORTED || (BROKEN == 3 && in != STARTING && in != RUNNING && in != FETCHING) -> a = ABORTED
			:: else -> a = READY /* pending */
			fi
		:: in != NONE && !dest_alive ->
			if
			:: in == READY || in == COMMITTED ->
				if
				:: BROKEN != 6 -> kill_there()
				:: else
				fi;
				in = ABORTED;
				a = ABORTED
			:: in == STARTING ->
				run_there(0);
				run_there(1);
				in = (LAZY -> FETCHING : RUNNING);
				a = RUNNING
			:: in == FETCHING -> a = RUNNING
			:: in == RUNNING || in == ABORTED -> a = in
			fi
		fi
	}
}

active proctype ferryd_there()
{
	mtype a;

	do
	:: atomic { !dest_alive && in == FETCHING && serves -> fetch(); in = RUNNING }
	:: !dest_alive && (in == READY || in == COMMITTED || in == STARTING) -> decide_there(a)
	:: atomic { !dest_alive && !swept && (in == RUNNING || in == ABORTED) -> in = NONE; swept = true }
	:: all_ended -> break
	od
}

/* --- the source ------------------------------------------------------------------------------------ */

/* From `asking` on, by whoever it is. */
inline settle(a)
{
	a = READY;
	do
	:: out == ASKING && a != RUNNING && a != ABORTED ->
		if
		:: atomic { decide_there(a); told = (a == RUNNING -> true : told) }
		:: atomic { lost < LOST -> lost++ }
		fi;
		if
		:: atomic { a == NONE -> a = (has_run -> RUNNING : ABORTED); told = has_run } /* an operator looks there */
		:: else
		fi
	:: out == ASKING && a == RUNNING -> out = (LAZY -> SERVING : MOVED)
	:: out == SERVING ->
		serves = true;
		if
		:: atomic { (in != FETCHING && in != STARTING && !restarted) -> serves = false; out = MOVED }
		:: atomic { restarted || BROKEN == 12 -> serves = false; out = STAYED } /* --here --force */
		fi
	:: out == ASKING && a == ABORTED -> out = STAYED
	:: out == MOVED -> end_here(); break
	:: out == STAYED -> let_go_here(); break
	od;
	/* DONE, which may get lost */
	if
	:: atomic { !dest_alive && (in == RUNNING || in == ABORTED) -> in = NONE }
	:: true
	fi;
	out = NONE
}

active proctype source()
{
	mtype a;

	{
		if
		:: ready_sent -> skip
		:: !link -> goto stay
		:: true -> gave_up = true; goto stay /* cancelled */
		fi;
		if
		:: BROKEN != 7 -> out = COMMITTING
		:: else
		fi;
		if
		:: BROKEN != 1 -> stop_waits = true
		:: else
		fi;
		commit_sent = (link -> true : commit_sent);
		if
		:: atomic { running_sent && !restarted -> told = true }; goto moved
		:: !link && BROKEN == 2 -> goto stay
		:: !link && BROKEN == 9 -> goto moved
		:: !link && BROKEN != 2 && BROKEN != 9 -> out = ASKING
		fi;
		settle(a);
		goto end;
moved:
		if
		:: LAZY && BROKEN != 10 ->
			out = SERVING;
			serves = true;
			if
			:: atomic { in != FETCHING && !restarted -> serves = false }
			:: atomic { restarted -> serves = false }; goto end /* cancelled */
			fi
		:: else
		fi;
		out = MOVED;
		end_here();
		done_sent = true;
		out = NONE;
		goto end;
stay:
		let_go_here();
		out = NONE;
end:
		atomic { source_alive = false; link = false }
	} unless {
		atomic {
			kill_source -> kill_source = false;
			if
			:: here == FROZEN && stop_waits -> here = STOPPED
			:: here == FROZEN && !stop_waits -> here = RUNS
			:: else
			fi;
			source_alive = false;
			serves = false;
			link = false;
			CHECK
		}
	}
}

/* `ferry migrate`, ferryd or `ferry resume`, one after the other until there is nothing to do. */
active proctype heir()
{
	mtype a;

again:
	{
		source_alive == false;
		if
		:: out == COMMITTING -> out = ASKING
		:: else
		fi;
		if
		:: out == NONE -> goto nothing
		:: else
		fi;
		settle(a);
nothing:
		source_ended = true
	} unless {
		atomic { kill_heir && !source_ended -> kill_heir = false; serves = false }; goto again
	}
}

/* --- the world ------------------------------------------------------------------------------------- */

active proctype world()
{
	do
	:: atomic { kills < KILLS && source_alive && !kill_source -> kill_source = true; kills++ }
	:: atomic { kills < KILLS && dest_alive && !kill_dest -> kill_dest = true; kills++ }
	:: atomic { kills < KILLS && !source_alive && !source_ended && !kill_heir -> kill_heir = true; kills++ }
	:: atomic { link -> link = false }
	/* Its processes are gone, and what they had done with it. With the copy here already ended that is the loss
	 * of a program by the loss of its machine, which no protocol helps against. */
	:: atomic {
		!restarted && !dest_alive && here != DEAD && (!told || (out == SERVING && !all_there)) && in != NONE ->
		restarted = true;
		kill_there();
		has_run = false;
		in = NONE
	   }
	:: !source_alive && source_ended && !dest_alive -> break
	od;
	/* An entry that nobody decides about any more is in a final state. */
	(in == NONE || in == RUNNING || in == ABORTED);
	assert(out == NONE);
	assert((here == RUNS && there[0] == DEAD && there[1] == DEAD) ||
	       (here == DEAD && there[0] == RUNS && there[1] == RUNS));
	all_ended = true
}

ltl comes_to_an_end { <> all_ended }

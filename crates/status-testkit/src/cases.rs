//! The contract: one case for each rule. A case panics if the store breaks its rule.
//!
//! The rules stand in one list, below, by subject; each subject's cases are in the file of its name.

mod beginning;
mod cancelling;
mod counting;
mod creating;
mod deciding;
mod durability;
mod errors;
mod forgetting;
mod listing;
mod settling;
mod sweeping;
mod watching;

use std::{fmt, thread};

use futures::future::BoxFuture;

use crate::kit::Kit;

/// A rule of the contract, and what checks it.
#[derive(Clone, Copy)]
pub struct Case {
    /// The rule in short: the name of its test.
    pub name: &'static str,
    /// The rule in words.
    pub rule: &'static str,
    /// What a backend must be able to do so that the rule is one for it.
    pub needs: Needs,
    check: fn(Kit) -> BoxFuture<'static, ()>,
}

/// What a case asks of a backend beyond an empty store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Needs {
    /// Nothing.
    Store,
    /// That its data can be opened again when it was closed.
    Durable,
    /// That its data can be opened by several handles at once.
    Shared,
}

impl Case {
    /// The case of this name.
    ///
    /// # Panics
    /// If there is none.
    pub fn named(name: &str) -> &'static Self {
        ALL.iter().find(|case| case.name == name).unwrap_or_else(|| panic!("there is no case {name}"))
    }

    /// Checks the rule. When it is broken, the rule is printed in words.
    ///
    /// # Panics
    /// If the kit's store breaks the rule.
    pub async fn check(&self, kit: Kit) {
        let _printed = PrintedOnPanic(self);
        (self.check)(kit).await;
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).field("rule", &self.rule).finish_non_exhaustive()
    }
}

struct PrintedOnPanic<'a>(&'a Case);

impl Drop for PrintedOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("The store breaks this rule: {}", self.0.rule);
        }
    }
}

/// The list of all rules. It is given to one of the arms below: `all` makes [`ALL`] of it, the others
/// make a `#[test]` of each case that the backend can run.
#[doc(hidden)]
#[macro_export]
macro_rules! __cases {
    (@all () $($needs:ident { $($subject:ident { $($name:ident = $rule:literal;)* })* })*) => {
        /// Every rule.
        pub const ALL: &[Case] = &[$($($(Case {
            name: stringify!($name),
            rule: $rule,
            needs: Needs::$needs,
            check: |kit| Box::pin($subject::$name(kit)),
        },)*)*)*];
    };
    (@store ($kit:expr) Store $store:tt Durable $durable:tt Shared $shared:tt) => {
        $crate::__cases! { @tests ($kit) $store }
    };
    (@durable ($kit:expr) Store $store:tt Durable $durable:tt Shared $shared:tt) => {
        $crate::__cases! { @tests ($kit) $store }
        $crate::__cases! { @tests ($kit) $durable }
    };
    (@shared ($kit:expr) Store $store:tt Durable $durable:tt Shared $shared:tt) => {
        $crate::__cases! { @tests ($kit) $store }
        $crate::__cases! { @tests ($kit) $durable }
        $crate::__cases! { @tests ($kit) $shared }
    };
    (@tests ($kit:expr) { $($subject:ident { $($name:ident = $rule:literal;)* })* }) => {
        $($(
            #[doc = $rule]
            #[test]
            fn $name() {
                $crate::run(async { $crate::cases::Case::named(stringify!($name)).check($kit).await });
            }
        )*)*
    };
    ($arm:ident $argument:tt) => { $crate::__cases! { @$arm $argument
        Store {
            creating {
                a_new_job_is_uploading =
                    "A new job with a file is in Uploading, with nothing done, at version 1.";
                a_job_without_a_file_is_waiting =
                    "A new job without a file is in Uploaded and shown as Waiting until it is started.";
                a_key_gives_its_job_again =
                    "The same request under the same key gives the same job; another one is refused.";
                a_key_is_its_owners_own =
                    "Two owners may use the same key.";
                creating_again_is_creating_once =
                    "A creation whose answer was lost can be repeated, however late.";
                an_id_stands_for_one_job =
                    "Creating another job under an id that is used names the one that has it.";
                one_key_creates_one_job_whoever_asks_at_once =
                    "Of different requests under one key at the same time one is carried out; the others \
                     are refused, and nobody is given a job that they did not ask for.";
            }
            deciding {
                commands_say_at_least_this_far =
                    "A command succeeds if what it wants is so already.";
                the_same_command_twice_is_once =
                    "A repeated command moves neither the revision nor the history.";
                a_contradiction_names_both_statuses =
                    "A command that contradicts the end names what the job is and what it cannot become.";
                terminal_is_final =
                    "Whatever comes after a terminal decision, the record stays as it is.";
                upload_progress_is_a_courtesy =
                    "Upload progress is kept every two seconds, never goes back, and is complete at the end.";
                a_begin_starts_a_job_that_nobody_started =
                    "A worker that begins a batch starts the job; the history says so, and a later start \
                     and seal work.";
                a_report_starts_a_job_that_nobody_started =
                    "A worker that reports a batch starts the job; the history says so, and a later start \
                     and seal work.";
                a_swap_needs_the_revision_it_was_made_from =
                    "A record is swapped in only over the revision it was made from; the same swap twice \
                     is one.";
                of_many_swaps_of_one_revision_one_is_told_ok =
                    "Of many different swaps of one revision exactly one is told Ok, and its record is in.";
                many_deciders_decide_once =
                    "Of cancels, failures and completions at the same moment one wins, and all agree.";
                the_history_is_complete_and_bounded =
                    "Every decision is in the record with its time, actor and reason.";
                the_head_alone_is_what_was_decided =
                    "The job's own record is read alone, and strongly if so asked.";
                a_completed_job_says_how =
                    "A completed job has succeeded, or is partial if an item failed.";
                a_terminal_job_keeps_what_was_done =
                    "A job that is over says what was done, what failed and what was not processed; \
                     listings know it without its batches.";
            }
            beginning {
                each_batch_of_a_delivery_gets_its_own_answer =
                    "Each batch of a delivery gets its own answer, in the order asked for; one that is \
                     named twice is worked on once, and one past the total takes no other with it.";
                the_store_answers_for_each_batch_it_is_asked_for =
                    "Before work, the store says how each of the batches stands, whatever part it is in.";
                starts_are_counted_once =
                    "A batch that is begun again runs once, and one that is settled does not run.";
                a_start_is_that_of_the_last_begin =
                    "A batch that is begun again has started when it was begun last.";
                a_start_is_noted_only_where_work_begins =
                    "No start is noted of a settled batch, of one past the total, or for a job that \
                     does not track starts, has not started, is to be cancelled, or is over.";
            }
            counting {
                every_batch_counts_once =
                    "A batch counts once, however often it is delivered.";
                a_late_batch_counts_and_moves_nothing =
                    "A batch that comes after the end counts, moves nothing, and its worker is told.";
                a_failed_batch_that_succeeds_moves_to_completed =
                    "A batch goes from failed to completed with its items, never back.";
                batches_add_up_to_the_total =
                    "Completed, failed and pending batches add up to the total at every step.";
                several_outcomes_in_one_call_are_as_one_by_one =
                    "Outcomes of batches in different parts count in one call as they would one by one.";
                of_two_reports_of_one_batch_in_one_call_the_success_counts =
                    "Of two reports of one batch in one call the success counts, whatever their order; \
                     each report gets its own effect.";
                a_batch_past_the_total_is_an_error =
                    "Beginning or reporting nothing but batches past the total is an error, and counts \
                     nothing.";
                a_report_past_the_total_takes_no_other_with_it =
                    "A report past the total changes nothing, and the others of its call count.";
                nothing_that_is_reported_makes_a_job_unreadable =
                    "Whatever numbers, texts and errors are reported, the job and its owner's list stay \
                     readable and right.";
                a_correction_with_other_items_stays_readable =
                    "A batch that failed with other items than it completes with leaves no count below \
                     zero.";
                a_correction_takes_back_what_was_counted =
                    "When a failed batch completes, what its failed attempt counted is taken back, no more \
                     and no less, whatever it completes with and in whatever order batches come.";
                what_was_heard_last_stays_the_last =
                    "The time of the last sign of life goes back by no more than a second.";
                the_version_only_grows =
                    "The version grows with every decision and every fact, and with nothing else.";
                many_workers_count_exactly =
                    "Six hundred batches, each delivered twice and more to sixteen workers at once, count \
                     once each.";
            }
            settling {
                the_last_batch_decides =
                    "The worker that settles the last batch completes the job; the counters are frozen.";
                redelivery_alone_decides =
                    "When a worker died between the last batch and the decision, its redelivery decides.";
                a_late_duplicate_alone_decides =
                    "When a worker died between the last batch and the decision, any duplicate decides.";
                a_read_alone_decides =
                    "A strongly consistent read completes a job that nobody decided.";
                a_poll_alone_decides =
                    "A poll that sees all batches settled completes a job that nobody decided.";
                a_sweep_alone_decides =
                    "A sweep completes a job that nobody decided, once it could be stalled.";
                a_failure_nobody_decided_is_decided =
                    "When a worker died after one failure too many, the next one fails the job, and the \
                     reason is named.";
                a_failure_whose_answer_was_lost_decides_when_it_comes_again =
                    "A failed batch whose answer was lost fails the job when it is reported again.";
                nothing_completes_before_the_seal =
                    "While the total is unknown nothing completes.";
                the_seal_sees_what_settled_before =
                    "The seal completes a job all of whose batches have settled.";
                a_seal_that_died_half_way_is_repeated =
                    "When a splitter died between sealing and marking the last part, the repeated seal \
                     completes the job.";
                sealing_twice_is_sealing_once =
                    "A seal with the same total is fine, with another an error; no total leaves out a \
                     batch that is settled.";
                zero_batches_complete_at_the_seal =
                    "A job without batches completes as empty at the seal.";
                a_batch_past_the_total_never_stands_for_one_of_the_jobs_own =
                    "A batch past the total that was reported in the moment of the seal never completes a \
                     job with another one missing.";
                by_default_the_first_failed_batch_fails_the_job =
                    "By default the first failed batch fails the job, and is named with its error.";
                tolerated_failures_complete_the_job_partially =
                    "Within its tolerance a job completes as partial; one failure more fails it.";
                one_failure_too_many_fails_the_job_at_once =
                    "The failure that is one too many fails the job at once, whatever parts the failed \
                     batches are in.";
                a_share_is_judged_when_the_total_is_known =
                    "A share of failed batches is judged from when the total is known.";
            }
            cancelling {
                cancelling_before_processing_is_at_once =
                    "Before processing, a request cancels at once.";
                cancelling_in_processing_is_confirmed_by_a_worker =
                    "In processing, a request is shown, and confirmed by the next worker that asks for \
                     work.";
                an_unheard_cancel_is_confirmed_by_the_sweeper =
                    "The sweeper confirms a request that no worker saw within the grace period.";
                the_last_batch_beats_the_cancel =
                    "A job whose last batch settled has completed, whoever asked to cancel it.";
                cancelling_a_terminal_job_is_an_error =
                    "Cancelling a job that completed or failed is an error that says which.";
            }
            errors {
                failed_items_are_listed_page_by_page =
                    "Which items failed, and why, is listed in the order of the batches, whatever the \
                     size of a page.";
                an_error_is_listed_as_it_was_reported =
                    "An error keeps its item, line, input, code and message.";
                errors_are_bounded =
                    "Over all pages exactly as many errors are listed as the policy allows, if there are \
                     more.";
                a_repeated_batch_changes_no_errors =
                    "A repeated batch that reports other errors changes none.";
                a_success_replaces_the_errors_of_the_failure =
                    "A batch that failed and completes has the errors it completed with, and no others.";
                listed_errors_are_those_of_the_attempt_that_counted =
                    "Of two attempts at one batch at the same moment the errors of the one that counted \
                     are listed, all of them.";
                errors_come_with_every_order_of_deliveries =
                    "In whatever order attempts at a batch arrive, its errors are those of the one that \
                     counted.";
            }
            sweeping {
                silence_is_a_stall =
                    "A job that was not heard of for longer than its policy allows is stalled.";
                the_sweeper_fails_what_is_past_its_deadline =
                    "The sweeper fails jobs whose upload or processing does not go on in time.";
                the_sweeper_leaves_the_living_alone =
                    "The sweeper touches neither a job that is heard of nor one that is over.";
                due_jobs_are_listed_page_by_page =
                    "Jobs that are due are listed once each, and none that is not, whatever the size of \
                     a page.";
                an_end_stays_due_until_it_is_propagated =
                    "A job whose end was not propagated is due, and a sweep mends it.";
                of_many_who_postpone_a_job_one_is_told_so =
                    "Of many sweepers that found the same job exactly one is told to look at it.";
                a_postponed_job_is_not_due_before =
                    "A job that was postponed is due at the new time, to the second, and not before.";
                a_decision_sets_anew_when_a_job_is_due =
                    "A decision makes the job due when its new record says so, wherever it was postponed \
                     to.";
                sweepers_share_the_jobs =
                    "Of several sweepers at once one decides each job, and nothing is left undecided.";
                quiet_jobs_are_looked_at_once_by_all_sweepers =
                    "Of several sweepers at once one looks at each job that needs no decision.";
            }
            listing {
                owners_see_only_their_own =
                    "For anybody but its owner a job does not exist.";
                jobs_are_listed_newest_first =
                    "An owner's jobs are listed newest first, whatever the size of a page.";
                jobs_of_a_status_are_listed_over_all_pages =
                    "The pages of a listing by status together hold all jobs in that status, newest first.";
                open_jobs_are_counted_up_to_a_bound =
                    "An owner's jobs that are not over are counted, up to a bound.";
                open_jobs_of_all_owners_are_listed =
                    "The jobs of all owners that are not over are listed once each.";
                changed_jobs_are_those_that_are_open_and_those_decided_since =
                    "An owner's changed jobs are the open ones and those decided about since, newest \
                     first.";
                the_last_completed_jobs_of_a_kind_are_known =
                    "An owner's last completed jobs of a kind are given with their counters, newest \
                     first.";
                unsettled_batches_are_known =
                    "The store knows exactly which batches are not settled.";
                batches_are_listed_by_how_they_stand =
                    "Failed, completed and unsettled batches are listed in order, sealed or not, whatever \
                     parts they are in.";
                what_is_not_there_is_not_found =
                    "A job that is not there is not found, whatever is asked of it.";
            }
            forgetting {
                retention_counts_from_the_terminal_decision =
                    "A job is kept for its retention from the terminal decision, and not a second longer.";
                all_of_a_job_goes_when_its_retention_is_over =
                    "When its retention is over, a job is gone with its batches, errors and key.";
                a_key_is_free_when_its_job_is_gone_though_nobody_purged =
                    "The key of a job that is gone can be used again, purged or not.";
                a_job_that_never_ends_is_forgotten_too =
                    "A job that never ends is forgotten, long after it could have ended.";
                purging_deletes_what_has_expired_and_nothing_else =
                    "Purging deletes what has expired, once, and nothing else.";
                erasing_leaves_nothing =
                    "Erasing leaves nothing of a job, whatever its status, and can be repeated.";
                erasing_leaves_the_others_alone =
                    "Erasing a job leaves all others as they are.";
                owners_erase_what_is_over =
                    "Owners erase their jobs when they are over, and not before.";
            }
            watching {
                a_watcher_sees_progress_and_the_end =
                    "A watcher sees the job go on, never back, and the stream ends with the job.";
                waiting_for_a_change_of_a_quiet_job_takes_the_time_it_is_given =
                    "Waiting for a change with the version just read does not return at once.";
                waiting_ends_when_the_job_changes_or_the_time_is_up =
                    "Waiting for a change ends when the time is up at the latest.";
            }
        }
        Durable {
            durability {
                what_was_acknowledged_is_there_after_reopening =
                    "What was acknowledged is there when the same data are opened again.";
                what_is_due_is_due_after_reopening =
                    "What is due, and what was postponed, is so when the same data are opened again.";
            }
        }
        Shared {
            durability {
                two_handles_see_each_others_writes =
                    "Two handles on the same data see each other's writes.";
                of_many_swaps_through_two_handles_one_is_told_ok =
                    "Of many swaps of one revision through two handles exactly one is told Ok.";
                two_handles_count_each_batch_once =
                    "Workers on two handles count each batch once.";
                two_handles_sweep_each_job_once =
                    "Sweepers on two handles share the jobs.";
                a_watcher_sees_what_another_handle_writes =
                    "A watcher on one handle sees what is written through another.";
            }
        }
    } };
}

crate::__cases!(all());

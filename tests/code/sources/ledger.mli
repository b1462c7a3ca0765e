(** Books and their sums. *)

type booking

(** Add up what was booked. *)
val total : booking list -> int

module File_store : sig
  val load : string -> booking list
  val save : booking list -> string -> unit
end
